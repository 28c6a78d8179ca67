"""Which failures are tried again, how often, and what is said at the end."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import grpc
import pytest
from job_server import JobServer
from replay_server import ReplayServer
from synthetic import messages_of
from test_storage import assert_same

import ess_client
from ess_client import Client, Profile, _retry
from ess_client._retry import Tries
from ess_client._steps import Deadline
from ess_client.errors import EssError

FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", (("ess-retry-after-ms", "50"),))
LOST = (grpc.StatusCode.UNAVAILABLE, "Socket closed", ())
READS = ["models", "server_info"]
WORK = ["profile", "estimate", "load_model"]
ONCE = ["unload_model"]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "profile": ("tiny", ["a", "b", "c"]),
    "estimate": ("tiny", ["a"]),
    "load_model": ("tiny",),
    "unload_model": ("tiny",),
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retry, "FIRST_PAUSE", 0.01)


@pytest.fixture
def replaying(server: ReplayServer, ragged: Profile) -> ReplayServer:
    server.responses = list(messages_of(ragged))
    return server


def call(client: Client, method: str) -> Any:
    return getattr(client, method)(*ARGUMENTS.get(method, ()))


@pytest.mark.parametrize("method", [*READS, *WORK, *ONCE])
def test_a_call_that_was_refused_before_its_work_is_tried_again(
    client: Client, replaying: ReplayServer, method: str
) -> None:
    replaying.failures = [FULL, FULL, FULL]
    began = time.monotonic()

    call(client, method)

    assert len(replaying.requests) == 4
    assert time.monotonic() - began >= 0.15  # As long as the server said.


@pytest.mark.parametrize(
    ("method", "tries"), [*((m, 4) for m in READS), *((m, 2) for m in WORK), ("unload_model", 1)]
)
def test_after_a_lost_connection_reads_are_tried_again_work_once_and_changes_never(
    client: Client, replaying: ReplayServer, method: str, tries: int
) -> None:
    replaying.failures = [LOST] * 9

    with pytest.raises(ess_client.Unavailable, match="Socket closed") as caught:
        call(client, method)

    assert len(replaying.requests) == tries
    assert caught.value.tries == tries
    said = re.search(r"\((\d) tries in \d+\.\d s\)", str(caught.value))
    assert (said is None) == (tries == 1)
    assert caught.value.message.startswith("Socket closed")


def test_a_profile_that_breaks_in_the_middle_is_assembled_anew(
    client: Client, replaying: ReplayServer, ragged: Profile
) -> None:
    replaying.break_after = 8
    done: list[int] = []

    profile = client.profile("tiny", ["a", "b", "c"], progress=lambda p: done.append(p.done))

    assert_same(profile, ragged)
    assert len(replaying.requests) == 2
    assert done.count(0) == 2  # Progress began anew.


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in grpc.StatusCode
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    ],
)
def test_no_other_error_is_tried_again(
    client: Client, replaying: ReplayServer, code: grpc.StatusCode
) -> None:
    replaying.failures = [(code, "the reason", ())]

    with pytest.raises(EssError, match="^the reason") as caught:
        client.models()

    assert len(replaying.requests) == caught.value.tries == 1
    assert not caught.value.refused


def test_without_retries_there_is_one_try(server: ReplayServer) -> None:
    server.failures = [FULL]

    with Client(server.address, retries=0) as client, pytest.raises(ess_client.ResourceExhausted):
        client.models()

    assert len(server.requests) == 1


def test_tries_and_pauses_end_within_the_timeout(client: Client, server: ReplayServer) -> None:
    server.failures = [(*FULL[:2], (("ess-retry-after-ms", "60000"),))]
    began = time.monotonic()

    with pytest.raises(ess_client.ResourceExhausted) as caught:
        client.models(timeout=1)

    assert time.monotonic() - began < 1
    assert (caught.value.retry_after, caught.value.tries) == (60, 1)


def test_the_server_has_what_is_left_of_the_timeout(client: Client, server: ReplayServer) -> None:
    server.failures = [(*FULL[:2], (("ess-retry-after-ms", "500"),))]

    client.models(timeout=3)

    assert server.seconds_left[0] > 2.5
    assert server.seconds_left[1] < 2.5


def test_a_call_reaches_a_server_that_starts_a_moment_later() -> None:
    with JobServer() as gone:
        pass
    started: list[JobServer] = []
    thread = threading.Timer(0.4, lambda: started.append(JobServer(gone.address).__enter__()))
    thread.start()

    try:
        with Client(gone.address, retries=60) as client:
            assert client.jobs() == []
    finally:
        thread.join()
        started[0].__exit__()


def test_pauses_double_up_to_a_limit_and_are_never_all_the_same() -> None:
    def pauses(draw: float) -> list[float]:
        tries = Tries(20, None, Deadline(3600), draw=lambda: draw)
        return [tries.pause_after(ess_client.Unavailable("gone")) for _ in range(12)]

    low, high = pauses(0.0), pauses(1.0)

    assert high[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert high[-1] == _retry.LONGEST_PAUSE
    assert low == pytest.approx([pause / 2 for pause in high])


def test_patience_counts_from_the_break_and_needs_something_to_have_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("ess_client._retry.time.monotonic", lambda: now[0])
    tries = Tries(1, None, Deadline(1e6), patience=300)
    lost = ess_client.Unavailable("gone")

    def fail() -> None:
        now[0] += tries.pause_after(lost)

    fail()
    with pytest.raises(ess_client.Unavailable):
        fail()
    tries.progressed()
    now[0] += 5000  # Nothing changes for a long time; then the server goes away.
    broken = now[0]
    with pytest.raises(ess_client.Unavailable):
        while True:
            fail()

    assert 300 <= now[0] - broken < 300 + 2 * _retry.LONGEST_PAUSE


def test_a_pause_that_one_notices_is_logged_with_its_reason(caplog: Any) -> None:
    tries = Tries(3, None, Deadline(3600), draw=lambda: 0.0)

    tries.pause_after(ess_client.Unavailable("gone"))
    tries.pause_after(ess_client.ResourceExhausted("full", retry_after=7, refused=True))

    assert [record.getMessage() for record in caplog.records] == [
        "RESOURCE_EXHAUSTED: full; next try in 7.0 s"
    ]


def test_callers_who_were_told_the_same_time_come_back_one_by_one() -> None:
    def pause(draw: float) -> float:
        full = ess_client.ResourceExhausted("full", retry_after=10, refused=True)
        return Tries(3, None, Deadline(3600), draw=lambda: draw).pause_after(full)

    assert [pause(0.0), pause(0.5), pause(1.0)] == pytest.approx([10, 12.5, 15])


def test_a_client_from_before_a_fork_is_refused_in_the_child(
    client: Client, server: ReplayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 12345)

    with pytest.raises(ess_client.FailedPrecondition, match="in its child 12345"):
        client.models()

    assert server.requests == []
