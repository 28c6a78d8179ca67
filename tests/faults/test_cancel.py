"""A caller who leaves in any stage of a call: the work stops at once and leaves nothing behind."""

import time

import grpc
import numpy as np
import pytest

from ess_client import Client, DenseOperator
from ess_client._operator_stream import operator_requests
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc
from tests.end_to_end import tiny_models
from tests.end_to_end.server_process import SERVER, wait_for

from .fault_server import FAULT_SERVER, FaultServer, gauges_that_are_not_zero, total
from .slow_reader import large_request, narrow_channel, read_one_message

MEASURES = [measures_pb2.Measure(tolerance=1e-3), measures_pb2.Measure(entropy={})]
GOOD = [[1, 2, 3, 4, 5]]
DEADLINE_SECONDS = 2  # By then a call has come to where it is held.
STAGES = {
    "Profile": ("queued", "tokenize", "forward", "ess", "send"),
    "ProfileOperators": ("queued", "ess", "send"),
}
CASES = [
    (rpc, stage, end)
    for rpc, stages in STAGES.items()
    for stage in stages
    for end in ("cancel", "deadline")
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cancel")
    tiny_models.make_llama(folder / "tiny")
    (folder / "server.textproto").write_text("threads: 2 max_running_profiles: 1")
    return folder


@pytest.fixture(scope="module")
def server(root):
    flags = (f"--config={root / 'server.textproto'}", f"--model_root={root}", "--preload=tiny")
    with FaultServer(*flags) as process, Client(process.address, timeout=60) as client:
        before = client.profile("tiny", token_ids=GOOD)
        yield process
        after = client.profile("tiny", token_ids=GOOD)
        assert (before.ess.values == after.ess.values).all()


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield profiler_pb2_grpc.EssProfilerStub(channel)


@pytest.fixture
def narrow(server):
    with narrow_channel(server.address) as channel:
        yield channel


def start(stub, rpc, timeout=60):
    """A call of many units of work, on every thread."""
    if rpc == "Profile":
        prompts = [
            profiler_pb2.Prompt(id=str(i), text="the quick brown fox " * 25) for i in range(8)
        ]
        request = profiler_pb2.ProfileRequest(model="tiny", prompts=prompts, measures=MEASURES)
        return stub.Profile(request, timeout=timeout)
    matrices = np.tril(np.random.default_rng(4).standard_normal((64, 96, 96)))
    messages = operator_requests(DenseOperator(matrices), [], measures_pb2.MeasureOptions(), None)
    return stub.ProfileOperators(iter(list(messages)), timeout=timeout)


def cancelled(server):
    return total(server.metrics(), "ess_requests_cancelled_total")


def model_of(rpc):
    return "tiny" if rpc == "Profile" else ""


@pytest.mark.parametrize("rpc", STAGES)
def test_an_undisturbed_call_has_many_units_of_work(server, stub, rpc):
    before = server.begun()
    list(start(stub, rpc))
    units = server.begun() - before
    assert set(units) == set(STAGES[rpc])
    assert sum(units.values()) > 50


@pytest.mark.parametrize(("rpc", "stage", "end"), CASES)
def test_at_most_one_unit_of_work_begins_after_the_caller_left(server, stub, rpc, stage, end):
    before = server.begun()
    left = cancelled(server)
    latencies = total(server.metrics(), "ess_cancel_latency_seconds_count")
    with server.holding(stage):
        call = start(stub, rpc, timeout=DEADLINE_SECONDS if end == "deadline" else 60)
        wait_for(lambda: server.begun()[stage] > before[stage])
        if end == "cancel":
            call.cancel()
        wait_for(lambda: cancelled(server) == left + 1)
        begun = server.begun()
    server.wait_until_idle()

    more = server.begun() - begun
    assert sum(more.values()) <= 1, more
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    code = grpc.StatusCode.CANCELLED if end == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.value.code() is code
    samples = server.metrics()
    assert not gauges_that_are_not_zero(samples)
    assert total(samples, "ess_cancel_latency_seconds_count") == latencies + 1


@pytest.mark.parametrize("end", ["cancel", "deadline"])
@pytest.mark.parametrize("rpc", STAGES)
def test_a_call_that_waits_in_the_queue_begins_no_work_after_its_caller_left(
    server, stub, rpc, end
):
    with server.holding("send"):
        before = server.begun()
        runs = start(stub, "Profile")
        wait_for(lambda: server.begun()["send"] > before["send"])
        begun = server.begun()
        left = total(server.metrics(), "ess_requests_cancelled_total", stage="queued")
        waits = start(stub, rpc, timeout=DEADLINE_SECONDS if end == "deadline" else 60)
        wait_for(lambda: total(server.metrics(), "ess_queue_requests", model=model_of(rpc)) == 1)
        if end == "cancel":
            waits.cancel()
        wait_for(
            lambda: (
                total(server.metrics(), "ess_requests_cancelled_total", stage="queued") == left + 1
            )
        )
        wait_for(lambda: total(server.metrics(), "ess_requests_in_flight") == 1)
        assert server.begun() == begun
        assert total(server.metrics(), "ess_queue_requests") == 0
    list(runs)
    server.wait_until_idle()
    assert not gauges_that_are_not_zero(server.metrics())


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_an_answer_that_waits_for_its_reader_is_dropped_when_the_caller_left(server, narrow, end):
    """All work is done: what is left waits in the server's memory."""
    done = server.metric("ess_profiled_sequences_total", model="tiny")
    left = server.metric("ess_requests_cancelled_total", model="tiny", stage="sending")
    call = read_one_message(
        narrow, large_request(prompts=8), timeout=3 * DEADLINE_SECONDS if end == "deadline" else 60
    )
    wait_for(lambda: server.metric("ess_profiled_sequences_total", model="tiny") == done + 8)

    if end == "cancel":
        call.cancel()

    wait_for(
        lambda: (
            server.metric("ess_requests_cancelled_total", model="tiny", stage="sending") == left + 1
        )
    )
    server.wait_until_idle()
    assert not gauges_that_are_not_zero(server.metrics())


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_work_that_waits_for_its_reader_ends_when_the_caller_left(server, narrow, end):
    left = server.metric("ess_requests_cancelled_total", model="tiny", stage="running")
    call = read_one_message(narrow, timeout=5 * DEADLINE_SECONDS if end == "deadline" else 60)
    wait_until_stalled(server)

    begun = server.begun()
    if end == "cancel":
        call.cancel()

    wait_for(
        lambda: (
            server.metric("ess_requests_cancelled_total", model="tiny", stage="running") == left + 1
        )
    )
    server.wait_until_idle()
    assert server.begun() == begun
    assert not gauges_that_are_not_zero(server.metrics())


def wait_until_stalled(server):
    """Until no work begins for half a second."""
    begun = None
    while begun != server.begun():
        begun = server.begun()
        time.sleep(0.5)


def test_the_server_itself_has_no_fault_points():
    assert b"ESS_FAULTS" in FAULT_SERVER.read_bytes()
    assert b"ESS_FAULTS" not in SERVER.read_bytes()
