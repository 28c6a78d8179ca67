"""Calls by gRPC alone, for tests of what the client hides: metadata, status codes, connections."""

import grpc

from ess_client._proto.ess.v1 import profiler_pb2, profiler_pb2_grpc, server_pb2


def stub_of(channel):
    return profiler_pb2_grpc.EssProfilerStub(channel)


def info(channel, metadata=()):
    """A call that needs the role of a viewer."""
    return stub_of(channel).GetServerInfo(
        server_pb2.GetServerInfoRequest(), timeout=20, metadata=metadata
    )


def profile(channel, metadata=()):
    request = profiler_pb2.ProfileRequest(model="tiny-llama")
    request.prompts.add(id="0").token_ids.ids.extend([1, 2, 3, 4, 5])
    return list(stub_of(channel).Profile(request, timeout=60, metadata=metadata))


def code_of(call, *arguments):
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
