"""What holds for every method of every service of ours, walked over their descriptors."""

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2

from ess_client._proto.ess.v1 import profiler_pb2
from tests.end_to_end.server_process import ServerProcess, wait_for

SERVICES = (
    profiler_pb2.DESCRIPTOR.services_by_name["EssProfiler"],
    service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
# No two methods have one name: metrics and roles go by it.
METHODS = {method.name: method for service in SERVICES for method in service.methods}
AVAILABLE = {
    "Profile",
    "ProfileOperators",
    "EstimateProfile",
    "ListModels",
    "GetModel",
    "LoadModel",
    "UnloadModel",
    "GetServerInfo",
    "SubmitJob",
    "GetJob",
    "ListJobs",
    "WatchJob",
    "CancelJob",
    "DeleteJob",
    "FetchJobResult",
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ModelInfer",
    "ModelStreamInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
}
# Whose empty request is a good one.
ANSWERED = {
    "ListModels",
    "ListJobs",
    "GetServerInfo",
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelStatistics",
    "ModelStreamInfer",  # Its errors are messages.
    "RepositoryIndex",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root, state = tmp_path_factory.mktemp("none"), tmp_path_factory.mktemp("state")
    with ServerProcess(f"--model_root={root}", f"--state_dir={state}") as process:
        yield process


def call(server, name):
    """Calls a method with an empty request and returns the status."""
    method = METHODS[name]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    kind = f"{'stream' if method.client_streaming else 'unary'}_"
    kind += "stream" if method.server_streaming else "unary"
    with grpc.insecure_channel(server.address) as channel:
        stub = getattr(channel, kind)(
            f"/{method.containing_service.full_name}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        argument = iter([request()]) if method.client_streaming else request()
        try:
            answer = stub(argument, timeout=30)
            if method.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def test_no_two_services_have_a_method_of_one_name():
    assert len(METHODS) == sum(len(service.methods) for service in SERVICES)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_empty_request_gets_a_documented_answer(server, name):
    code, details = call(server, name)
    if name not in AVAILABLE:
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert name in details
    elif name in ANSWERED:
        assert code == grpc.StatusCode.OK
    else:
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        assert details


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_call_is_counted_and_logged_once(server, name):
    code, _ = call(server, name)
    wait_for(lambda: f"rpc={name} " in server.log())
    label = "".join(word.capitalize() for word in code.name.split("_"))
    counted = {
        sample: value
        for sample, value in server.metrics().items()
        if sample[0] == "ess_requests_total" and ("rpc", name) in sample[1]
    }
    assert sum(counted.values()) >= 1, label
    assert server.metric("ess_requests_in_flight", model="", rpc=name) == 0
