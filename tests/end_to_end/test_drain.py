"""SIGTERM under load: what still runs, what ends how, and when."""

import signal
import threading
from contextlib import contextmanager

import grpc
import pytest

from ess_client import Client
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc

from . import tiny_models
from .health import LIVENESS, READINESS, is_serving
from .server_process import ServerProcess, wait_for

FOREVER = 600  # Longer than any test waits.


@pytest.fixture
def root(tmp_path):
    tiny_models.make_large_llama(tmp_path / "slow")
    tiny_models.make_llama(tmp_path / "tiny")
    return tmp_path


@contextmanager
def serve(root, config):
    path = root / "server.textproto"
    path.write_text(config)
    flags = (f"--config={path}", f"--model_root={root}", "--preload=slow,tiny")
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.address) as channel:
        yield server, profiler_pb2_grpc.EssProfilerStub(channel)


def request(model, prompts, length):
    return profiler_pb2.ProfileRequest(
        model=model,
        prompts=[
            profiler_pb2.Prompt(id=str(i), token_ids=profiler_pb2.TokenIds(ids=[5] * length))
            for i in range(prompts)
        ],
        measures=[measures_pb2.Measure(tolerance=10.0**-k) for k in range(1, 6)],
    )


def status(call):
    """Reads a call to its end."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code()
    return call.code()


def refuses_work(server):
    return "refusing new work" in server.log()


@contextmanager
def upload_without_end(stub):
    """A call of ProfileOperators that never says anything."""
    end = threading.Event()

    def requests():
        end.wait()
        yield from ()

    try:
        yield stub.ProfileOperators(requests(), timeout=FOREVER)
    finally:
        end.set()


def test_every_call_ends_with_a_status_when_the_time_is_up(root):
    def in_flight(rpc, model):
        return server.metric("ess_requests_in_flight", model=model, rpc=rpc)

    with serve(root, "drain_seconds: 1") as (server, stub), upload_without_end(stub) as upload:
        unread = stub.Profile(request("slow", 16, 400), timeout=FOREVER)
        next(unread)
        calls = [stub.Profile(request("slow", 8, 900), timeout=FOREVER) for _ in range(20)]
        wait_for(lambda: in_flight("Profile", "slow") == 21)
        wait_for(lambda: in_flight("ProfileOperators", "") == 1)

        server.process.send_signal(signal.SIGTERM)

        statuses = [status(call) for call in calls]
        assert set(statuses) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert grpc.StatusCode.UNAVAILABLE in statuses
        # Connections of calls that are not read, or not written, are closed.
        broken = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert status(unread) in broken
        assert status(upload) in broken
        assert server.process.wait(60) == 0
        assert "calls have not ended within" in server.log()


def test_a_waiting_call_is_told_why_it_ends(root):
    with serve(root, "drain_seconds: 1") as (server, stub):
        calls = [stub.Profile(request("slow", 8, 900), timeout=FOREVER) for _ in range(8)]
        wait_for(lambda: server.metric("ess_requests_in_flight", model="slow", rpc="Profile") == 8)
        server.process.send_signal(signal.SIGTERM)
        ended = [call for call in calls if status(call) is grpc.StatusCode.UNAVAILABLE]
        assert "the server is shutting down" in {call.details() for call in ended}
        assert server.process.wait(60) == 0


def test_a_finished_answer_is_sent_to_its_last_byte(root):
    with serve(root, f"drain_seconds: {FOREVER}") as (server, stub):
        call = stub.Profile(request("tiny", 20, 200), timeout=FOREVER)
        received = [next(call)]
        wait_for(lambda: server.metric("ess_profiled_sequences_total", model="tiny") == 20)

        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses_work(server))
        received += call

        assert received[-1].WhichOneof("message") == "summary"
        assert call.code() is grpc.StatusCode.OK
        assert server.process.wait(60) == 0


def test_a_second_signal_ends_at_once(root):
    with serve(root, f"drain_seconds: {FOREVER}") as (server, stub):
        unread = stub.Profile(request("slow", 16, 400), timeout=FOREVER)
        next(unread)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses_work(server))
        assert server.process.poll() is None

        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(60) == 0
        assert status(unread) is not grpc.StatusCode.OK


def test_work_is_taken_while_load_balancers_are_told(root):
    config = f"drain_seconds: {FOREVER} drain_delay_seconds: {FOREVER}"
    with serve(root, config) as (server, _), Client(server.address) as client:
        server.process.send_signal(signal.SIGTERM)
        for name in READINESS:
            wait_for(lambda name=name: not is_serving(server.address, name))

        assert is_serving(server.address, LIVENESS)
        assert client.profile("tiny", token_ids=[[1, 2, 3]]).ess.sizes["position"] == 3

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
