"""Callers who read slowly, not at all, or have gone without a farewell: they cost little memory,
hold up nobody, and are noticed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from ess_client import Client
from ess_client._proto.ess.v1 import jobs_pb2, profiler_pb2_grpc
from tests.end_to_end import tiny_models
from tests.end_to_end.server_process import ROOT, ServerProcess, wait_for

from .fault_server import gauges_that_are_not_zero, total
from .slow_reader import large_request, narrow_channel, read_one_message

STREAMS = 8
# Beside the hidden states of its own prompts: 8 of 400 positions have less than 1 MiB here.
MAX_BYTES_PER_STREAM = 8 << 20
LARGE = large_request(prompts=8, measures=64)
GOOD = [[1, 2, 3, 4, 5]]
# A server notices a silent connection after 30 s without a word and 10 s without an answer.
NOTICED_SECONDS = 60
CONFIG = "threads: 2 max_running_profiles: 1 max_stall_seconds: 600"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    tiny_models.make_llama(folder / "tiny")
    (folder / "server.textproto").write_text(CONFIG)
    return folder


@pytest.fixture
def server(root):
    flags = (f"--config={root / 'server.textproto'}", f"--model_root={root}", "--preload=tiny")
    with ServerProcess(*flags) as process:
        yield process


def sent_bytes(server):
    return server.metric("ess_grpc_sent_bytes_total", rpc="Profile")


def bytes_of(answers):
    return sum(answer.ByteSize() for answer in answers)


def in_flight(server):
    return total(server.metrics(), "ess_requests_in_flight", rpc="Profile")


def wait_until_stalled(server):
    sent = -1
    while sent != sent_bytes(server):
        sent = sent_bytes(server)
        time.sleep(1)


def test_stalled_readers_cost_bounded_memory_and_hold_up_nobody(server):
    process = psutil.Process(server.process.pid)
    with grpc.insecure_channel(server.address) as channel:  # What a call needs while it runs.
        whole = bytes_of(profiler_pb2_grpc.EssProfilerStub(channel).Profile(LARGE))
    assert whole > 9 << 20
    server.wait_until_idle()
    before = process.memory_info().rss

    with contextlib.ExitStack() as stack:
        calls = []
        for _ in range(STREAMS):
            channel = stack.enter_context(narrow_channel(server.address))
            calls.append(read_one_message(channel, LARGE))
        wait_until_stalled(server)
        assert in_flight(server) == STREAMS

        grown = process.memory_info().rss - before
        print(f"{STREAMS} stalled streams: {grown / STREAMS / 2**20:.1f} MiB of memory each")
        assert grown < STREAMS * MAX_BYTES_PER_STREAM
        with Client(server.address, timeout=60) as client:
            client.profile("tiny", token_ids=GOOD)
            large = client.profile("tiny", token_ids=[[5] * 400] * 4)  # It needs the slot.
        assert large["000"].sizes["position"] == 400

        # One of them reads on after all, slowly, and gets all of it.
        rest = 0
        for number, answer in enumerate(calls[0]):
            rest += answer.ByteSize()
            if number % 10 == 0:
                time.sleep(0.02)
        assert rest > whole - (2 << 20)
    server.wait_until_idle()
    assert not gauges_that_are_not_zero(server.metrics())


def test_a_request_that_waits_for_a_slow_readers_memory_does_not_wait_in_its_slot(root, tmp_path):
    """The one has the memory and needs the slot, the other the reverse: both come to their end."""
    flags = (f"--model_root={root}", "--preload=tiny")
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.address) as channel:
        stub = profiler_pb2_grpc.EssProfilerStub(channel)
        needed = stub.EstimateProfile(LARGE).peak_bytes
        weights = int(server.metric("ess_model_bytes", model="tiny", tier="device"))
    config = tmp_path / "server.textproto"
    config.write_text(f"{CONFIG} device_memory_budget_bytes: {weights + needed * 3 // 2}")
    with (
        ServerProcess(f"--config={config}", *flags) as server,
        narrow_channel(server.address) as slow,
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor() as pool,
    ):
        reader = read_one_message(slow, LARGE, timeout=60)
        wait_until_stalled(server)
        call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(LARGE, timeout=60)
        other = pool.submit(bytes_of, call)
        wait_for(lambda: in_flight(server) == 2)
        wait_for(lambda: total(server.metrics(), "ess_queue_requests") == 0)
        time.sleep(1)  # It runs, and waits for memory.
        assert not other.done()

        assert (
            abs(bytes_of(reader) - other.result()) < 1 << 16
        )  # Of one, a message was read before.


@contextlib.contextmanager
def client_process(address):
    """Another process, in the middle of an answer that it does not read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.slow_reader", address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "reading\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def connections_of(server):
    return [c for c in psutil.Process(server.process.pid).net_connections() if c.raddr]


def test_a_client_that_was_killed_is_noticed_at_once(server):
    with client_process(server.address) as client:
        wait_until_stalled(server)
        os.kill(client.pid, signal.SIGKILL)
        wait_for(lambda: in_flight(server) == 0)
    assert server.metric("ess_requests_cancelled_total", model="tiny", stage="running") == 1


def test_a_client_that_says_nothing_any_more_is_noticed(server):
    """Stopped, it keeps its connection, as one behind a network that swallows all."""
    with client_process(server.address) as client:
        wait_until_stalled(server)
        os.kill(client.pid, signal.SIGSTOP)
        began = time.monotonic()
        with Client(server.address, timeout=60) as other:
            other.profile("tiny", token_ids=GOOD)
        wait_for(lambda: in_flight(server) == 0, NOTICED_SECONDS)
        print(f"a silent client was noticed after {time.monotonic() - began:.0f} s")
        assert server.metric("ess_requests_cancelled_total", model="tiny", stage="running") == 1
        wait_for(lambda: not connections_of(server), NOTICED_SECONDS)


def test_a_result_that_nobody_reads_on_is_given_up(root, tmp_path):
    (tmp_path / "server.textproto").write_text("max_stall_seconds: 2")
    flags = (f"--config={tmp_path / 'server.textproto'}", f"--model_root={root}")
    with (
        ServerProcess(*flags, f"--state_dir={tmp_path / 'state'}") as server,
        Client(server.address, timeout=60) as client,
        narrow_channel(server.address) as channel,
    ):
        measures = [f"tolerance:{k}e-3" for k in range(1, 7)]
        job = client.submit_job("tiny", token_ids=[[5] * 400] * 100, measures=measures)
        job.wait()
        stub = profiler_pb2_grpc.EssProfilerStub(channel)
        call = stub.FetchJobResult(jobs_pb2.FetchJobResultRequest(id=job.id), timeout=60)
        next(call)
        wait_for(
            lambda: total(server.metrics(), "ess_requests_in_flight", rpc="FetchJobResult") == 0
        )
        with pytest.raises(grpc.RpcError):
            list(call)
