"""Callers of ModelInfer who do not take their answers: these cost a bounded memory, for a while."""

import os
import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2

from tests.end_to_end import tiny_models
from tests.end_to_end.inference import connected, tensors, tokens_request
from tests.end_to_end.server_process import ROOT, ServerProcess, wait_for

MOST_ANSWERS = 4
STALL_SECONDS = 6
CONFIG = f"""
threads: 2
max_stall_seconds: {STALL_SECONDS}
max_inference_answer_bytes: 10000000
"""
# 8.6 MB, in a second or so.
LARGE = tokens_request(
    np.full((256, 100), 5),
    model="tiny",
    measures=",".join(f"tolerance:{k}e-3" for k in range(1, 8)),
)
CLIENT = """
import sys, grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
request = service_pb2.ModelInferRequest.FromString(sys.stdin.buffer.read())
channel = grpc.insecure_channel(sys.argv[1], [("grpc.max_receive_message_length", -1)])
stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
call = stub.ModelInfer.future(request)
print("sent", flush=True)
call.result()
"""


@pytest.fixture
def server(tmp_path):
    tiny_models.make_llama(tmp_path / "tiny")
    (tmp_path / "server.textproto").write_text(CONFIG)
    flags = (f"--config={tmp_path / 'server.textproto'}", f"--model_root={tmp_path}")
    with ServerProcess(*flags, "--preload=tiny") as process:
        yield process


def frozen_client(server):
    """A process that has sent its request, and stands still before the answer comes."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    process.stdin.write(LARGE.SerializeToString())
    process.stdin.close()
    assert process.stdout.readline() == b"sent\n"
    count = server.metric("ess_grpc_started_total", rpc="ModelInfer")
    wait_for(lambda: server.metric("ess_grpc_started_total", rpc="ModelInfer") > count - 1)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGSTOP)
    return process


def test_answers_that_nobody_takes_are_bounded_and_dropped_in_time(server):
    frozen = [frozen_client(server) for _ in range(MOST_ANSWERS)]
    try:
        with connected(server) as stub:

            def finished_profiles():
                return server.metric("ess_profiled_sequences_total", model="tiny")

            wait_for(lambda: finished_profiles() == 256 * MOST_ANSWERS, seconds=60)
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(LARGE, timeout=60)
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_inference_answer_bytes" in error.value.details()
            shed = server.metric("ess_requests_shed_total", model="tiny", reason="answer_bytes")
            assert shed == 1
            # A small one is not in the way.
            assert tensors(stub.ModelInfer(tokens_request([[1, 2]], model="tiny")))["ESS"].size

            in_flight = {"model": "tiny", "rpc": "ModelInfer"}
            wait_for(
                lambda: server.metric("ess_requests_in_flight", **in_flight) == 0,
                seconds=STALL_SECONDS + 15,
            )
            assert tensors(stub.ModelInfer(LARGE, timeout=60))["ESS"].shape[0] == 256
    finally:
        for process in frozen:
            process.kill()
            process.wait()
            process.stdout.close()


def test_errors_that_nobody_reads_are_bounded(server):
    """An error repeats the request's id: a stream that is not read is not read from, either."""
    sent = []

    def requests():
        for number in range(100):
            sent.append(number)
            yield service_pb2.ModelInferRequest(model_name="absent", id="x" * (3 << 20))

    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with connected(server) as stub:
        call = stub.ModelStreamInfer(requests())
        count = -1
        while count != len(sent):
            count = len(sent)
            time.sleep(1.5)
        assert 0 < count < 60
        assert process.memory_info().rss - before < 64 << 20
        call.cancel()
    server.wait_until_idle()
