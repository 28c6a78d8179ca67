"""Jobs over a real gRPC connection."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_server import JobServer

import ess_client
from ess_client import Client, _prompt_lines
from ess_client._proto.ess.v1 import jobs_pb2

RESULT = bytes(i * i % 251 for i in range(10_500))


@pytest.fixture
def client(job_server: JobServer) -> Iterator[Client]:
    with Client(job_server.address, timeout=20) as connected:
        yield connected


def test_a_submission_carries_what_was_asked(client: Client, job_server: JobServer) -> None:
    job = client.submit_job(
        "tiny",
        ["text", {"id": "mine", "token_ids": [1, 2]}],
        measures="entropy",
        layers="0-2",
        horizon=8,
        idempotency_key="k",
        priority="high",
        labels={"run": "7"},
    )

    asked = job_server.jobs[job.id].specification
    assert (asked.model, asked.idempotency_key, asked.labels) == ("tiny", "k", {"run": "7"})
    assert asked.priority == jobs_pb2.JOB_PRIORITY_HIGH
    assert (asked.options.horizon, asked.layers.ranges[0].last) == (8, 2)
    lines = [json.loads(line) for line in b"".join(job_server.lines["k"]).splitlines()]
    assert lines == [{"text": "text"}, {"id": "mine", "token_ids": [1, 2]}]
    assert (job.info.state, job.info.model, job.info.labels) == ("queued", "tiny", {"run": "7"})
    assert (job.info.measures, job.info.priority) == (("entropy",), "high")


def test_a_file_of_the_server_takes_the_place_of_prompts(
    client: Client, job_server: JobServer
) -> None:
    job = client.submit_job("tiny", prompts_file="corpus.jsonl", idempotency_key="k")

    assert job_server.jobs[job.id].specification.prompts_file == "corpus.jsonl"
    assert job_server.lines["k"] == []


def test_prompts_of_any_number_are_sent_in_pieces_of_whole_lines(
    client: Client, job_server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_prompt_lines, "IN_MEMORY_BYTES", 1 << 16)  # The rest goes to disk.

    client.submit_job("tiny", (f"{i} " + "x" * 3000 for i in range(1000)), idempotency_key="k")

    pieces = job_server.lines["k"]
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= _prompt_lines.PIECE_BYTES
    texts = [json.loads(line)["text"] for piece in pieces for line in piece.splitlines()]
    assert [text.split()[0] for text in texts] == [str(i) for i in range(1000)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "give one of prompts, token_ids and prompts_file; found none"),
        ({"prompts": ["a"], "prompts_file": "x"}, "found prompts and prompts_file"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["a", {"text": 3}]}, "prompt 1: text is no string but int"),
        ({"prompts": ["a" * (1 << 20)]}, r"prompt 0 has \d+ bytes as a line of JSON; the limit"),
        ({"prompts": ["a"], "priority": "urgent"}, "priority is 'urgent'"),
        ({"prompts": ["a"], "measures": "rank"}, "unknown measure 'rank'"),
        ({"prompts": ["a"], "timeout": 0}, "timeout is 0"),
    ],
)
def test_a_wrong_submission_is_refused_before_the_call(
    client: Client, job_server: JobServer, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ess_client.InvalidArgument, match=reason):
        client.submit_job("tiny", **arguments)

    assert job_server.calls == []


def test_an_error_of_the_callers_own_iterable_is_raised_as_it_is(
    client: Client, job_server: JobServer
) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        client.submit_job("tiny", broken())

    assert job_server.calls == []


def test_a_submission_that_is_tried_again_makes_one_job(
    client: Client, job_server: JobServer
) -> None:
    job_server.fail("SubmitJob")  # After the server has made the job: the answer is lost.
    job_server.fail("SubmitJob")

    job = client.submit_job("tiny", (str(i) for i in range(3)))

    assert job_server.count("SubmitJob") == 3
    assert list(job_server.jobs) == [job.id]
    assert [len(b"".join(pieces).splitlines()) for pieces in job_server.lines.values()] == [3]
    keys = {asked.idempotency_key for _, asked in job_server.calls}
    assert len(keys) == 1
    assert client.submit_job("tiny", ["0"]).id != job.id  # Without a key of yours: a new job.


def test_the_same_key_with_other_content_is_refused(client: Client, job_server: JobServer) -> None:
    first = client.submit_job("tiny", ["a"], idempotency_key="k")

    assert client.submit_job("tiny", ["a"], idempotency_key="k").id == first.id
    with pytest.raises(ess_client.AlreadyExists, match="'k' is taken"):
        client.submit_job("tiny", ["b"], idempotency_key="k")


def test_all_pages_of_jobs_are_listed(client: Client, job_server: JobServer) -> None:
    job_server.page = 3
    for state in itertools.islice(
        itertools.cycle([jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_FAILED]), 8
    ):
        job_server.add(state)

    assert [job.id for job in client.jobs()] == [f"job-{i}" for i in reversed(range(8))]
    assert job_server.count("ListJobs") == 3
    assert [job.id for job in client.jobs("failed")] == ["job-7", "job-5", "job-3", "job-1"]
    with pytest.raises(ess_client.InvalidArgument, match="state is 'done'"):
        client.jobs("done")


def test_a_job_is_watched_until_it_has_ended(client: Client, job_server: JobServer) -> None:
    job_server.add(prompts_total=4)
    seen = []

    for status in client.job("job-0").watch():
        seen.append((status.state, status.prompts_done, status.seconds_left))
        if status.state == "queued":
            job_server.move("job-0", state=jobs_pb2.JOB_STATE_RUNNING, prompts_done=1)
        elif status.prompts_done == 1:
            job_server.move("job-0", prompts_done=2, seconds_left=3.5)
        else:
            job_server.succeed("job-0", RESULT)

    assert seen == [
        ("queued", 0, None),
        ("running", 1, None),
        ("running", 2, 3.5),
        ("succeeded", 2, 3.5),
    ]


def test_a_watch_goes_on_after_its_connection_broke(client: Client, job_server: JobServer) -> None:
    job_server.add()
    for _ in range(5):  # More often than `retries`: each one brings something.
        job_server.fail("WatchJob", after=1)
    states = []

    for status in client.job("job-0").watch():
        states.append(status.state)
        if len(states) == 1:
            threading.Timer(1.5, job_server.succeed, ("job-0", RESULT)).start()

    assert states == ["queued", "succeeded"]
    assert job_server.count("WatchJob") == 6


def test_waiting_outlasts_a_restart_of_the_server(tmp_path: Path) -> None:
    first = JobServer()
    first.__enter__()
    first.add()
    restarted: list[JobServer] = []

    def restart() -> None:
        first.__exit__()
        time.sleep(2)  # Longer than one try lasts, with its pause.
        second = JobServer(first.address)
        second.add()
        second.__enter__()
        restarted.append(second)
        second.succeed("job-0", RESULT)

    with Client(first.address, retries=1) as client:
        job = client.job("job-0")
        states = []
        thread = threading.Thread(target=restart)
        for status in job.watch():
            if not states:
                thread.start()
            states.append(status.state)
        thread.join()
        job.download(tmp_path / "r")
    restarted[0].__exit__()

    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert (tmp_path / "r").read_bytes() == RESULT


def test_waiting_for_a_server_that_never_answered_ends_soon(job_server: JobServer) -> None:
    job_server.add()
    with Client(job_server.address, retries=1) as client:
        job = client.job("job-0")
        for _ in range(3):
            job_server.fail("WatchJob")

        with pytest.raises(ess_client.Unavailable, match="2 tries"):
            job.wait()


def test_a_watch_has_the_timeout_of_its_call(client: Client, job_server: JobServer) -> None:
    job_server.add()

    with pytest.raises(ess_client.DeadlineExceeded, match=r"not done after 0\.3 s"):
        client.job("job-0").wait(timeout=0.3)


def test_a_long_watch_makes_another_call_when_one_is_over(
    client: Client, job_server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ess_client._job_calls.WATCH_SECONDS", 0.2)
    job_server.add()
    threading.Timer(0.7, job_server.succeed, ("job-0", RESULT)).start()

    assert client.job("job-0").wait().state == "succeeded"
    assert job_server.count("WatchJob") > 2


def test_leaving_a_watch_ends_its_call(client: Client, job_server: JobServer) -> None:
    job_server.add()

    for _ in client.job("job-0").watch():
        break

    assert client.job("job-0").cancel().state == "cancelled"


def test_a_job_is_cancelled_and_deleted(client: Client, job_server: JobServer) -> None:
    job_server.add()
    job = client.job("job-0")

    assert job.cancel().state == "cancelled"
    assert job.status().ended
    job.delete()

    with pytest.raises(ess_client.NotFound, match="there is no job 'job-0'"):
        client.job("job-0")


def test_a_deletion_whose_answer_was_lost_is_not_repeated(
    client: Client, job_server: JobServer
) -> None:
    job_server.add()
    job_server.fail("DeleteJob")

    with pytest.raises(ess_client.Unavailable):
        client.job("job-0").delete()

    assert job_server.count("DeleteJob") == 1
