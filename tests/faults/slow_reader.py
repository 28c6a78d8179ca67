"""A profile with a large answer, of which one message is read.

As a program (python -m tests.faults.slow_reader HOST:PORT), a client that then stands still.
"""

import sys
import time

import grpc

from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc


def narrow_channel(address):
    """A client that takes in little ahead of its reader, however fast it has read before."""
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
    return grpc.insecure_channel(address, options)


def large_request(model="tiny", prompts=100, measures=6):
    """Its answer is about 20 kB a prompt and measure."""
    return profiler_pb2.ProfileRequest(
        model=model,
        prompts=[
            profiler_pb2.Prompt(id=str(i), token_ids={"ids": [5] * 400}) for i in range(prompts)
        ],
        measures=[measures_pb2.Measure(tolerance=1e-3 * k) for k in range(1, measures + 1)],
    )


def read_one_message(channel, request=None, timeout=600):
    call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(
        request or large_request(), timeout=timeout
    )
    next(call)
    return call


def main():
    call = read_one_message(narrow_channel(sys.argv[1]))
    print("reading", flush=True)
    time.sleep(600)
    call.cancel()


if __name__ == "__main__":
    main()
