"""The commands `ess jobs`, and what the shell completes, against a real gRPC connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_server import JobServer
from replay_server import ReplayServer
from typer.testing import CliRunner

from ess_client._proto.ess.v1 import jobs_pb2
from ess_client.cli.errors import JOB_ENDED_BADLY
from ess_client.cli.main import app

RESULT = bytes(i * i % 251 for i in range(500_000))
FAILED = {
    "state": jobs_pb2.JOB_STATE_FAILED,
    "error_code": "RESOURCE_EXHAUSTED",
    "error_message": "the disk is full",
}
Ess = Callable[..., Any]


@pytest.fixture
def ess(job_server: JobServer) -> Ess:
    """Runs `ess jobs` with these arguments; the result has exit_code, stdout and stderr."""
    environment = {"ESS_SERVER": job_server.address, "COLUMNS": "200", "NO_COLOR": "1"}

    def run(*arguments: str | Path) -> Any:
        return CliRunner(env=environment).invoke(app, ["jobs", *map(str, arguments)])

    return run


def test_submit_prints_the_id_and_nothing_else(
    ess: Ess, job_server: JobServer, tmp_path: Path
) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"text": "hello", "id": "first"}\n\n{"token_ids": [3, 4]}\n')

    result = ess(
        *("submit", "--model", "tiny", "--prompts", lines, "--measure", "entropy"),
        *("--layers", "0-2", "--priority", "low", "--label", "run=7", "--label", "by=me=you"),
        *("--idempotency-key", "k"),
    )

    assert (result.exit_code, result.stdout, result.stderr) == (0, "job-0\n", "")
    asked = job_server.jobs["job-0"].specification
    assert asked.labels == {"run": "7", "by": "me=you"}
    assert (asked.priority, asked.layers.ranges[0].last) == (jobs_pb2.JOB_PRIORITY_LOW, 2)
    assert [json.loads(line) for line in job_server.lines["k"][0].splitlines()] == [
        {"id": "first", "text": "hello"},
        {"token_ids": [3, 4]},
    ]


def test_submit_takes_a_file_of_the_server(ess: Ess, job_server: JobServer) -> None:
    result = ess("submit", "--model", "tiny", "--prompts-file", "corpus.jsonl")

    assert result.exit_code == 0
    assert job_server.jobs["job-0"].specification.prompts_file == "corpus.jsonl"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give prompts (--prompts, --prompt, --token-ids) or --prompts-file"),
        (["--prompt", "a", "--prompts-file", "b"], "give prompts"),
        (["--prompt", "a", "--label", "run"], "--label 'run' is not like run=7"),
        (["--token-ids", "x"], "--token-ids 'x' is not like 1,2,3"),
    ],
)
def test_a_wrong_submission_is_one_line(
    ess: Ess, job_server: JobServer, arguments: list[str], reason: str
) -> None:
    result = ess("submit", "--model", "tiny", *arguments)

    assert result.exit_code == 3
    assert reason in result.stderr
    assert result.stdout == ""
    assert job_server.jobs == {}


def test_a_line_of_prompts_that_is_wrong_is_named(
    ess: Ess, job_server: JobServer, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')

    result = ess("submit", "--model", "tiny", "--prompts", tmp_path / "p.jsonl")

    assert result.exit_code == 3
    assert "p.jsonl, line 2: needs text or token_ids" in result.stderr
    assert job_server.jobs == {}


def succeed_soon(job_server: JobServer) -> None:
    """Ends job-0, once it is there, with two steps in between."""

    def go() -> None:
        while "job-0" not in job_server.jobs or job_server.count("WatchJob") == 0:
            threading.Event().wait(0.02)
        running = jobs_pb2.JOB_STATE_RUNNING
        job_server.move("job-0", state=running, prompts_done=1, progress=0.5, seconds_left=12.0)
        threading.Event().wait(0.3)
        job_server.move("job-0", prompts_done=2, run_seconds=1.5, restarts=2)
        job_server.succeed("job-0", RESULT)

    threading.Thread(target=go).start()


def test_submit_can_wait_and_save_the_result(
    ess: Ess, job_server: JobServer, tmp_path: Path
) -> None:
    succeed_soon(job_server)

    result = ess(
        "submit", "--model", "tiny", "--prompt", "a", "--prompt", "b", "-o", tmp_path / "r"
    )

    assert (result.exit_code, result.stdout) == (0, "job-0\n")
    assert "running: 1 of 2 prompts, 50%, about 12 s left" in result.stderr
    assert "succeeded: 2 of 2 prompts, 100%" in result.stderr
    assert (tmp_path / "r").read_bytes() == RESULT


def test_watch_ends_with_the_job(ess: Ess, job_server: JobServer) -> None:
    job_server.add(prompts_total=2)
    succeed_soon(job_server)

    result = ess("watch", "job-0")

    assert result.exit_code == 0
    assert result.stdout == "job job-0 succeeded: 2 prompts in 1.5 s; restarts of the server: 2\n"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_watch_prints_an_object_per_change(ess: Ess, job_server: JobServer) -> None:
    job_server.add(prompts_total=2)
    succeed_soon(job_server)

    result = ess("watch", "job-0", "--json")

    changes = [json.loads(line) for line in result.stdout.splitlines()]
    assert changes[0]["state"] == "queued"
    assert (changes[-1]["state"], changes[-1]["result_bytes"]) == ("succeeded", len(RESULT))
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (FAILED, "ess: job job-0 failed: RESOURCE_EXHAUSTED: the disk is full\n"),
        ({"state": jobs_pb2.JOB_STATE_CANCELLED}, "ess: job job-0 was cancelled\n"),
    ],
)
@pytest.mark.parametrize("command", [["watch"], ["watch", "--json"], ["fetch", "-o", "nowhere"]])
def test_a_job_that_ended_badly_has_an_exit_code_of_its_own(
    ess: Ess, job_server: JobServer, command: list[str], fields: dict[str, Any], reason: str
) -> None:
    job_server.add(**fields)

    result = ess(*command, "job-0")

    assert result.exit_code == JOB_ENDED_BADLY == 11
    assert result.stderr.endswith(reason)
    assert not Path("nowhere").exists()


def test_a_job_that_failed_while_it_was_waited_for_is_told(ess: Ess, job_server: JobServer) -> None:
    def go() -> None:
        while job_server.count("WatchJob") == 0:
            threading.Event().wait(0.02)
        job_server.move("job-0", **FAILED)

    threading.Thread(target=go).start()

    result = ess("submit", "--model", "tiny", "--prompt", "a", "--wait", "--json")

    assert result.exit_code == JOB_ENDED_BADLY
    assert json.loads(result.stdout)["error_message"] == "the disk is full"


def test_fetch_saves_the_result_and_shows_progress(
    ess: Ess, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)

    result = ess("fetch", "job-0", "-o", tmp_path / "r")

    assert result.exit_code == 0
    assert result.stdout == f"saved {tmp_path / 'r'}\n"
    assert result.stderr.endswith("0.5 of 0.5 MB\n")
    assert (tmp_path / "r").read_bytes() == RESULT


def test_fetch_waits_only_when_it_is_told_to(
    ess: Ess, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add(prompts_total=2)

    early = ess("fetch", "job-0", "-o", tmp_path / "r")
    succeed_soon(job_server)
    waited = ess("fetch", "job-0", "-o", tmp_path / "r", "--wait", "--json")

    assert early.exit_code == 4
    assert "job job-0 is queued: 0 of 2 prompts are done" in early.stderr
    assert waited.exit_code == 0
    assert json.loads(waited.stdout)["output"] == str(tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == RESULT


def test_an_interrupted_wait_says_that_the_job_goes_on(
    ess: Ess, job_server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ess_client.cli.jobs._follow", interrupt)

    result = ess("submit", "--model", "tiny", "--prompt", "a", "--wait")

    assert result.exit_code == 130
    assert result.stdout == "job-0\n"
    assert "job job-0 goes on; `ess jobs watch job-0`" in result.stderr


def test_list_shows_jobs_newest_first(ess: Ess, job_server: JobServer) -> None:
    assert ess("list").stdout == "no jobs\n"
    specification = jobs_pb2.JobSpecification(model="tiny", labels={"run": "7"})
    job_server.add(
        jobs_pb2.JOB_STATE_RUNNING,
        specification=specification,
        prompts_done=3,
        prompts_total=9,
        seconds_left=61.0,
        submitted_at=1.7e9,
    )
    job_server.add(**FAILED)

    text = ess("list").stdout.splitlines()
    failed = json.loads(ess("list", "--state", "failed", "--json").stdout)

    assert text[0].split()[:4] == ["job", "state", "model", "prompts"]
    assert text[1].startswith("job-1")
    assert "RESOURCE_EXHAUSTED: the disk is full" in text[1]
    assert all(part in text[2] for part in ("job-0", "running", "tiny", "3/9", "61 s", "run=7"))
    assert [job["id"] for job in failed] == ["job-1"]


def test_cancel_and_delete_take_several_jobs(ess: Ess, job_server: JobServer) -> None:
    job_server.add()
    job_server.add()

    cancelled = ess("cancel", "job-0", "job-1")
    deleted = ess("delete", "job-0", "job-1")
    again = ess("delete", "job-0")

    assert cancelled.stdout == "job-0: cancelled\njob-1: cancelled\n"
    assert deleted.stdout == "deleted job-0\ndeleted job-1\n"
    assert job_server.jobs == {}
    job_server.add()
    assert json.loads(ess("delete", "job-0", "--json").stdout) == {"deleted": ["job-0"]}
    assert again.exit_code == 4
    assert again.stderr.startswith("ess: NOT_FOUND: id: there is no job 'job-0'")


def complete(words: str, address: str) -> str:
    """What bash would be offered for the last of the words."""
    environment = {"_ESS_COMPLETE": "complete_bash", "COMP_WORDS": words, "ESS_SERVER": address}
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    return subprocess.run(
        [sys.executable, "-c", "from ess_client.cli.main import app; app(prog_name='ess')"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


def test_the_shell_completes_commands_models_jobs_and_servers(
    server: ReplayServer, job_server: JobServer, configuration: Path
) -> None:
    job_server.add()
    configuration.write_text('[servers.lab]\nserver = "gpu-1:8001"\n')

    assert complete("ess jobs fe", job_server.address).split() == ["fetch"]
    assert complete("ess jobs watch job", job_server.address).split() == ["job-0"]
    assert complete("ess profile --model t", server.address).split() == ["tiny"]
    assert complete("ess info --server l", server.address).split() == ["lab"]
    assert (
        complete("ess jobs watch job", "127.0.0.1:1").split() == []
    )  # Nobody answers: no proposals.
