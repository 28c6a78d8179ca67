"""Streams of ModelStreamInfer that are long, full, or open when the server ends."""

import queue
import signal
import time

import grpc
import numpy as np
import pytest

from . import tiny_models
from .inference import connected, parameter, tensors, tokens_request
from .server_process import ServerProcess, wait_for

IN_FLIGHT = {"model": "slow", "rpc": "ModelStreamInfer"}
MOST_IN_FLIGHT = 16
SLOW = tokens_request(np.full((8, 900), 5), model="slow")
QUICK = tokens_request([[1, 2, 3]], model="tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    tiny_models.make_large_llama(folder / "slow")
    tiny_models.make_llama(folder / "tiny")
    return folder


@pytest.fixture
def serve(root, tmp_path):
    def start(config=""):
        path = tmp_path / "server.textproto"
        path.write_text(config)
        return ServerProcess(f"--config={path}", f"--model_root={root}", "--preload=slow,tiny")

    return start


class Stream:
    """A stream that stays open until it is closed."""

    def __init__(self, stub, **options):
        self.requests = queue.Queue()
        self.call = stub.ModelStreamInfer(iter(self.requests.get, None), **options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.requests.put(None)
        self.call.cancel()

    def send(self, *requests):
        for request in requests:
            self.requests.put(request)

    def status(self):
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return error.code()
        return self.call.code()


def test_no_more_than_a_fixed_number_of_requests_is_in_flight(serve):
    with serve() as server, connected(server) as stub:
        with Stream(stub) as stream:
            stream.send(*[SLOW] * 3 * MOST_IN_FLIGHT)
            wait_for(lambda: server.metric("ess_requests_in_flight", **IN_FLIGHT) == MOST_IN_FLIGHT)
            time.sleep(0.5)
            assert server.metric("ess_requests_in_flight", **IN_FLIGHT) == MOST_IN_FLIGHT
        wait_for(lambda: server.metric("ess_requests_in_flight", **IN_FLIGHT) == 0)
        # It serves on.
        assert tensors(stub.ModelInfer(QUICK))["ESS"].shape == (1, 2, 3, 4, 3)


def test_a_quick_request_overtakes_a_slow_one_of_its_stream(serve):
    with serve() as server, connected(server) as stub, Stream(stub) as stream:
        slow, quick = type(SLOW)(), type(QUICK)()
        slow.CopyFrom(tokens_request(np.full((1, 300), 5), model="slow"))  # Half a second.
        quick.CopyFrom(QUICK)
        slow.id, quick.id = "slow", "quick"
        stream.send(slow, quick)
        finished = []
        for message in stream.call:
            assert not message.error_message
            if parameter(message.infer_response, "triton_final_response"):
                finished.append(message.infer_response.id)
            if len(finished) == 2:
                break
        assert finished == ["quick", "slow"]


def test_with_the_header_a_failure_ends_the_others_in_flight(serve):
    with serve() as server, connected(server) as stub:
        with Stream(stub, metadata=(("triton_grpc_error", "true"),)) as stream:
            stream.send(SLOW, SLOW)
            wait_for(lambda: server.metric("ess_requests_in_flight", **IN_FLIGHT) == 2)
            stream.send(tokens_request([[1_000_000]], model="tiny"))
            assert stream.status() == grpc.StatusCode.INVALID_ARGUMENT
        server.wait_until_idle()
        cancelled = server.metric("ess_requests_total", **IN_FLIGHT, code="CANCELLED")
        assert cancelled == 2
        # The caller did not leave: its requests were ended.
        assert server.metric("ess_requests_cancelled_total", model="slow", stage="running") == 0


def test_a_deadline_ends_the_stream_and_its_work(serve):
    with serve() as server, connected(server) as stub:
        with Stream(stub, timeout=0.5) as stream:
            stream.send(SLOW, SLOW)
            assert stream.status() == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: server.metric("ess_requests_in_flight", **IN_FLIGHT) == 0)


def test_a_stream_without_requests_does_not_hold_up_the_end_of_the_server(serve):
    with serve("drain_seconds: 25") as server, connected(server) as stub, Stream(stub) as stream:
        stream.send(QUICK)
        assert len([next(stream.call) for _ in range(3)]) == 3
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - start < 10
        assert stream.status() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_what_still_runs_in_a_stream_when_the_server_ends_is_unavailable(serve):
    with serve("drain_seconds: 1") as server, connected(server) as stub, Stream(stub) as stream:
        stream.send(*[SLOW] * 3)
        wait_for(lambda: server.metric("ess_requests_in_flight", **IN_FLIGHT) == 3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert stream.status() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        lines = [line for line in server.log().splitlines() if "rpc=ModelStreamInfer" in line]
        assert sum("code=UNAVAILABLE" in line for line in lines) == 4  # And the stream itself.
