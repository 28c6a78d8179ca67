"""A full disk, and a database that cannot be used."""

import shutil
import sqlite3
import subprocess

import pytest
from grpc import StatusCode

from ess_client import Client
from tests.end_to_end import tiny_models
from tests.end_to_end.job_calls import FAILED, SUCCEEDED, JobCalls, error_of
from tests.end_to_end.server_process import ServerProcess, run_server

TEXTS = ["the quick brown fox", "the dog sleeps."]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_models.make_llama(folder / "tiny")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """64 MiB of memory as a disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def state(models, tmp_path):
    """A state folder with one finished job, and the job's id."""
    folder = tmp_path / "state"
    with (
        ServerProcess(f"--model_root={models}", f"--state_dir={folder}") as server,
        JobCalls(server.address) as jobs,
    ):
        job = jobs.end(jobs.submit("tiny", prompts=TEXTS).id)
    return folder, job.id


def test_a_result_larger_than_the_disk_fails_its_job_and_nothing_else(models, small_disk):
    with (
        ServerProcess(f"--model_root={models}", f"--state_dir={small_disk}") as server,
        JobCalls(server.address) as jobs,
        Client(server.address) as client,
    ):
        # 2 measures, 3 layers, 4 heads, 512 positions: 48 KiB for each prompt.
        large = jobs.end(jobs.submit("tiny", prompts=[[5] * 512] * 1200).id)
        small = jobs.end(jobs.submit("tiny", prompts=TEXTS).id)
        client.profile("tiny", prompts=TEXTS)

        assert large.state == FAILED
        assert large.error_code == "RESOURCE_EXHAUSTED"
        assert "free" in large.error_message
        assert small.state == SUCCEEDED
        assert not (small_disk / "jobs" / large.id).exists()


def test_a_disk_that_fills_up_meanwhile_fails_the_job_or_refuses_it(models, small_disk):
    with (
        ServerProcess(f"--model_root={models}", f"--state_dir={small_disk}") as server,
        JobCalls(server.address) as jobs,
        Client(server.address) as client,
    ):
        jobs.end(jobs.submit("tiny", prompts=TEXTS).id)
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * (1 << 20))

        code, text = error_of(jobs.submit, "tiny", prompts=TEXTS)
        assert code == StatusCode.RESOURCE_EXHAUSTED
        assert "bytes free" in text
        client.profile("tiny", prompts=TEXTS)
        filler.unlink()

        assert jobs.end(jobs.submit("tiny", prompts=TEXTS).id).state == SUCCEEDED


def damage(path):
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)


def make_newer(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage, ("damaged", ".recover", "Nothing was changed")),
        (lambda path: path.write_bytes(b"not a database" * 1000), ("damaged", "Nothing")),
        (make_newer, ("schema 9", "newer server")),
        (lambda path: path.unlink(), ("no database", "Nothing was changed")),
        (lambda path: path.write_bytes(b""), ("no database", "Nothing was changed")),
    ],
    ids=["damaged", "no database", "newer", "gone", "empty"],
)
def test_a_database_that_cannot_be_used_stops_the_start_and_is_left_alone(
    models, state, change, words
):
    folder, job_id = state
    for beside in ("-wal", "-shm"):
        folder.joinpath(f"jobs.sqlite3{beside}").unlink(missing_ok=True)
    change(folder / "jobs.sqlite3")
    before = contents(folder)

    start = run_server(
        "--listen=127.0.0.1:0",
        "--metrics_listen=127.0.0.1:0",
        f"--model_root={models}",
        f"--state_dir={folder}",
    )

    assert start.returncode == 1
    assert start.stdout == ""
    last = start.stderr.strip().splitlines()[-1]
    assert last.startswith("ess_server: state_dir: ")
    assert all(word in last for word in words), last
    assert contents(folder) == before
    assert (folder / "jobs" / job_id / "result.safetensors").exists()


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_locked_database_stops_the_start(models, state):
    folder, _ = state
    database = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")

    start = run_server(
        "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", f"--state_dir={folder}"
    )
    database.close()

    assert start.returncode == 1
    assert "locked" in start.stderr.strip().splitlines()[-1]


def test_a_state_folder_can_be_moved(models, state, tmp_path):
    folder, job_id = state
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)

    with (
        ServerProcess(f"--model_root={models}", f"--state_dir={moved}") as server,
        JobCalls(server.address) as jobs,
    ):
        assert len(jobs.result(job_id)) == jobs.get(job_id).result_bytes
