"""Results of jobs as local files: whole or not at all, and taken up where they broke off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from job_server import JobServer
from synthetic import make_profile

import ess_client
from ess_client import Client, Progress
from ess_client._proto.ess.v1 import jobs_pb2

RESULT = bytes(i * i % 251 for i in range(10_500))


@pytest.fixture
def client(job_server: JobServer) -> Iterator[Client]:
    with Client(job_server.address, timeout=20) as connected:
        yield connected


def test_a_result_is_downloaded_and_read(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    made = make_profile()
    made.save(tmp_path / "made")
    job_server.add()
    job_server.succeed("job-0", (tmp_path / "made").read_bytes())
    seen: list[Progress] = []

    profile = client.job("job-0").result(progress=seen.append)
    kept = client.job("job-0").result(tmp_path / "kept.safetensors")

    assert profile.prompt_ids == kept.prompt_ids == made.prompt_ids
    assert (tmp_path / "kept.safetensors").read_bytes() == (tmp_path / "made").read_bytes()
    assert seen[-1].done == seen[-1].total == (tmp_path / "made").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"made", "kept.safetensors"}


def test_a_download_goes_on_where_its_connection_broke(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    for _ in range(5):  # More often than `retries`: each one brings something.
        job_server.fail("FetchJobResult", after=2)

    client.job("job-0").download(tmp_path / "r")

    assert (tmp_path / "r").read_bytes() == RESULT
    offsets = [r.offset for name, r in job_server.calls if name == "FetchJobResult"]
    assert offsets == [0, 2000, 4000, 6000, 8000, 10000]


def test_a_download_that_brings_nothing_ends_after_its_tries(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    for _ in range(9):
        job_server.fail("FetchJobResult")

    with pytest.raises(ess_client.Unavailable, match=r"shutting down \(4 tries in"):
        client.job("job-0").download(tmp_path / "r")

    assert list(tmp_path.iterdir()) == []


def test_a_new_process_takes_up_what_an_earlier_one_has_left(
    job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    job_server.fail("FetchJobResult", grpc.StatusCode.INTERNAL, "the process ended here", (), 3)
    program = (
        "import sys; from ess_client import Client\n"
        "Client(sys.argv[1]).job('job-0').download(sys.argv[2])"
    )
    command = [sys.executable, "-c", program, job_server.address, str(tmp_path / "r")]

    first = subprocess.run(command, capture_output=True, text=True, check=False)
    left = [path.stat().st_size for path in tmp_path.iterdir()]
    subprocess.run(command, check=True)

    assert "the process ended here" in first.stderr
    assert left == [3000]
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r").read_bytes() == RESULT
    offsets = [r.offset for name, r in job_server.calls if name == "FetchJobResult"]
    assert offsets == [0, 3000]


def test_a_spoilt_part_is_fetched_again(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    digest = job_server.jobs["job-0"].result_sha256
    (tmp_path / f".r.{digest[:16]}.part").write_bytes(b"x" * 4000)

    client.job("job-0").download(tmp_path / "r")

    assert (tmp_path / "r").read_bytes() == RESULT


def test_a_result_with_another_digest_never_appears(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    job_server.results["job-0"] = RESULT[:-1] + b"!"
    (tmp_path / "r").write_bytes(b"older")

    with pytest.raises(ess_client.DataLoss, match="has SHA-256"):
        client.job("job-0").download(tmp_path / "r")

    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r").read_bytes() == b"older"


def test_two_downloads_to_one_place_do_not_mix(
    client: Client, job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    job = client.job("job-0")

    def begin_another(progress: Progress) -> None:
        if progress.done == 1000:
            with pytest.raises(OSError, match="another process downloads this result"):
                job.download(tmp_path / "r")

    job.download(tmp_path / "r", progress=begin_another)

    assert (tmp_path / "r").read_bytes() == RESULT


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        (
            {
                "state": jobs_pb2.JOB_STATE_FAILED,
                "error_code": "RESOURCE_EXHAUSTED",
                "error_message": "disk full",
            },
            ess_client.ResourceExhausted,
            "job job-0 failed: RESOURCE_EXHAUSTED: disk full",
        ),
        ({"state": jobs_pb2.JOB_STATE_CANCELLED}, ess_client.Cancelled, "job-0 was cancelled"),
        (
            {"state": jobs_pb2.JOB_STATE_RUNNING, "prompts_done": 1, "prompts_total": 4},
            ess_client.FailedPrecondition,
            "job job-0 is running: 1 of 4 prompts are done",
        ),
    ],
)
def test_a_job_without_a_result_says_why(
    client: Client,
    job_server: JobServer,
    tmp_path: Path,
    fields: dict[str, Any],
    error: type[ess_client.EssError],
    reason: str,
) -> None:
    job_server.add(**fields)

    with pytest.raises(error, match=reason):
        client.job("job-0").download(tmp_path / "r", wait=False)

    assert list(tmp_path.iterdir()) == []
