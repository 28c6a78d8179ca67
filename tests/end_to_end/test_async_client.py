"""AsyncClient with the real server: many calls at once, cancels, and a queue that is full."""

import asyncio

import numpy as np
import pytest

from ess_client import AsyncClient, ResourceExhausted

from . import tiny_models
from .server_process import ServerProcess, wait_for

CALLS = 24
IDS = [[1 + (7 * position + call) % 90 for position in range(40)] for call in range(CALLS)]
LARGE = {"token_ids": [[5] * 900] * 8, "measures": ["tolerance:1e-3", "head_relative:1e-2"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_models.make_large_llama(root / "slow")
    tiny_models.make_llama(root / "tiny")
    return root


@pytest.fixture
def serve(root, tmp_path):
    def start(config=""):
        (tmp_path / "config").write_text(config)
        return ServerProcess(f"--config={tmp_path / 'config'}", f"--model_root={root}")

    return start


async def profile_all(client):
    calls = (client.profile("tiny", token_ids=[ids], measures="entropy") for ids in IDS)
    return await asyncio.gather(*calls, return_exceptions=True)


def values(profile):
    return np.stack([profile[name].values for name in profile.layer_names])


def test_many_profiles_at_once_are_the_ones_of_one_after_the_other(serve):
    async def ask(address):
        async with AsyncClient(address, timeout=120) as client:
            alone = [
                await client.profile("tiny", token_ids=[ids], measures="entropy") for ids in IDS
            ]
            return alone, await profile_all(client)

    with serve() as server:
        alone, together = asyncio.run(ask(server.address))

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(values(one), values(other))


def test_a_cancelled_task_stops_the_servers_work(serve):
    async def leave(server):
        async with AsyncClient(server.address, timeout=120) as client:
            await client.load_model("slow")
            task = asyncio.create_task(client.profile("slow", **LARGE))
            running = ("ess_queue_wait_seconds_count", {"model": "slow"})
            while server.metric(running[0], **running[1]) < 1:
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The next one does not wait for what was left.
            return await client.profile("slow", token_ids=[[1, 2, 3]], timeout=20)

    with serve() as server:
        assert asyncio.run(leave(server)).prompts[0].length == 3
        wait_for(lambda: server.metric("ess_requests_in_flight", model="slow", rpc="Profile") == 0)


def test_calls_that_a_full_queue_refuses_come_back_until_they_have_a_place(serve):
    async def ask(address, retries):
        async with AsyncClient(address, timeout=120, retries=retries) as client:
            await client.load_model("tiny")
            return await profile_all(client)

    with serve("max_queued_profiles: 2 max_running_profiles: 1 threads: 1") as server:
        refused = asyncio.run(ask(server.address, 0))
        shed = server.metric("ess_requests_shed_total", model="tiny", reason="queue_requests")
        patient = asyncio.run(ask(server.address, 100))

    errors = [one for one in refused if isinstance(one, ResourceExhausted)]
    assert len(errors) == shed > 0
    assert all(error.retry_after > 0 for error in errors)
    assert [one.prompts[0].length for one in patient] == [40] * CALLS
