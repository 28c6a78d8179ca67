"""Jobs with the real server, from the side of the Python client and the command `ess`."""

import asyncio
import json
import os
import subprocess

import numpy as np
import pytest

import ess_client
from ess_client import AsyncClient, Client, load_profile

from .server_process import ROOT, ServerProcess

MODEL = "tiny-llama"
IDS = [[1 + (7 * prompt + position) % 90 for position in range(3 + prompt)] for prompt in range(6)]
PROMPTS = [{"id": f"p{prompt}", "token_ids": ids} for prompt, ids in enumerate(IDS)]
MEASURES = ["tolerance:1e-3", "entropy"]


@pytest.fixture(scope="module")
def prompt_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    return root


@pytest.fixture(scope="module")
def flags(model_root, prompt_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "config").write_text(f'prompt_root: "{prompt_root}"')
    return (
        f"--config={folder / 'config'}",
        f"--model_root={model_root}",
        f"--state_dir={folder / 'state'}",
    )


@pytest.fixture(scope="module")
def server(flags):
    with ServerProcess(*flags) as process:
        yield process


@pytest.fixture
def ess(server, tmp_path):
    """Runs the command `ess jobs` as a process."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("ESS_")}
    environment |= {"ESS_SERVER": server.address, "XDG_CONFIG_HOME": str(tmp_path)}
    environment |= {"PYTHONPATH": str(ROOT / "client"), "COLUMNS": "200"}

    def run(*arguments):
        return subprocess.run(
            [ROOT / ".venv" / "bin" / "ess", "jobs", *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def assert_same(one, other):
    assert one.prompt_ids == other.prompt_ids
    assert one.layer_names == other.layer_names
    for name in one.layer_names:
        np.testing.assert_array_equal(one[name].values, other[name].values)


def test_a_job_gives_what_a_profile_gives(client, server, tmp_path):
    direct = client.profile(MODEL, PROMPTS, measures=MEASURES)
    with Client(server.address, timeout=120) as client:
        job = client.submit_job(MODEL, iter(PROMPTS), measures=MEASURES, labels={"run": "7"})
        statuses = list(job.watch())
        profile = job.result(tmp_path / "r.safetensors")

        assert statuses[-1].state == "succeeded"
        assert statuses[-1].prompts_done == statuses[-1].prompts_total == len(PROMPTS)
        assert statuses[-1].labels == {"run": "7"}
        assert statuses[-1].measures == ("tolerance:0.001", "entropy")
        assert_same(profile, direct)
        assert_same(load_profile(tmp_path / "r.safetensors"), direct)
        assert job.id in [other.id for other in client.jobs("succeeded")]
        job.delete()
        with pytest.raises(ess_client.NotFound):
            job.status()


def test_a_file_of_the_server_gives_the_same(server):
    with Client(server.address, timeout=120) as client:
        streamed = client.submit_job(MODEL, PROMPTS, reduce="heads").result()
        named = client.submit_job(MODEL, prompts_file="corpus.jsonl", reduce="heads").result()

    assert_same(streamed, named)


def test_the_same_key_is_the_same_job(server):
    with Client(server.address, timeout=120) as client:
        first = client.submit_job(MODEL, PROMPTS, idempotency_key="same")

        assert client.submit_job(MODEL, PROMPTS, idempotency_key="same").id == first.id
        assert client.submit_job(MODEL, PROMPTS).id != first.id
        with pytest.raises(ess_client.AlreadyExists, match="same"):
            client.submit_job(MODEL, PROMPTS[:-1], idempotency_key="same")


def test_the_asynchronous_client_does_the_same(client, server):
    direct = client.profile(MODEL, PROMPTS, measures=MEASURES)

    async def ask():
        async with AsyncClient(server.address, timeout=120) as client:
            jobs = await asyncio.gather(
                *(client.submit_job(MODEL, PROMPTS, measures=MEASURES) for _ in range(4))
            )
            return await asyncio.gather(*(job.result() for job in jobs))

    for profile in asyncio.run(ask()):
        assert_same(profile, direct)


def test_a_download_is_taken_up_by_another_client(server, tmp_path):
    """Of some megabytes, since the server sends pieces of 512 KiB."""

    def leave(progress):
        if progress.done > 1 << 20:
            raise KeyboardInterrupt

    with Client(server.address, timeout=120) as client:
        ids = [[1 + (i * j) % 90 for j in range(256)] for i in range(1, 65)]
        measures = [f"tolerance:1e-{digits}" for digits in range(1, 6)]
        job = client.submit_job(MODEL, token_ids=ids, measures=measures)
        with pytest.raises(KeyboardInterrupt):
            job.download(tmp_path / "r", progress=leave)
    assert not (tmp_path / "r").exists()
    seen = []

    with Client(server.address, timeout=120) as client:
        client.job(job.id).download(tmp_path / "r", progress=lambda p: seen.append(p.done))

    assert seen[0] > 1 << 20
    assert seen[-1] == (tmp_path / "r").stat().st_size
    assert len(load_profile(tmp_path / "r").prompts) == 64


def test_waiting_outlasts_a_server_that_was_killed(flags, tmp_path):
    flags = [f for f in flags if not f.startswith("--state_dir")] + [f"--state_dir={tmp_path}"]
    ids = [[1 + (i * j) % 90 for j in range(200)] for i in range(1, 201)]

    with ServerProcess(*flags) as first, Client(first.address) as client:
        job = client.submit_job(MODEL, token_ids=ids, measures="tolerance:1e-3")
        watching = job.watch()
        next(status for status in watching if status.state == "running")
        first.process.kill()
        first.process.wait()
        with ServerProcess(*flags, f"--listen={first.address}"):
            *_, last = watching
            assert last.state == "succeeded"
            assert len(job.result().prompts) == len(ids)


def test_the_commands(ess, tmp_path):
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    arguments = ("--model", MODEL, "--prompts", tmp_path / "p.jsonl", "--label", "by=test")

    submitted = ess("submit", *arguments)
    id = submitted.stdout.strip()
    watched = ess("watch", id)
    fetched = ess("fetch", id, "-o", tmp_path / "r.safetensors")
    listed = json.loads(ess("list", "--json").stdout)
    cancelled = ess("cancel", id)
    deleted = ess("delete", id)
    gone = ess("watch", id)
    at_once = ess("submit", *arguments, "-o", tmp_path / "s.safetensors")

    assert (submitted.returncode, submitted.stderr) == (0, "")
    assert watched.stdout.startswith(f"job {id} succeeded: 6 prompts in ")
    assert fetched.returncode == 0
    assert load_profile(tmp_path / "r.safetensors").prompt_ids == [p["id"] for p in PROMPTS]
    assert {"by": "test"} in [job["labels"] for job in listed if job["id"] == id]
    assert cancelled.stdout == f"{id}: succeeded\n"  # It had ended.
    assert deleted.stdout == f"deleted {id}\n"
    assert gone.returncode == 4
    assert at_once.returncode == 0
    assert (tmp_path / "s.safetensors").read_bytes() == (tmp_path / "r.safetensors").read_bytes()


def test_a_job_that_fails_says_why(ess):
    submitted = ess("submit", "--model", "no-tokenizer", "--prompt", "text", "--wait")

    assert submitted.returncode == 11
    assert "failed: FAILED_PRECONDITION" in submitted.stderr
