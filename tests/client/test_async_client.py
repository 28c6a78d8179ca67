"""AsyncClient: the same calls as Client, awaited."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from job_server import JobServer
from replay_server import ReplayServer, operator_answer
from synthetic import make_profile, messages_of
from test_storage import assert_same

import ess_client
from ess_client import AsyncClient, AsyncJob, Client, DenseOperator, Job, Profile, Progress

RESULT = bytes(i * i % 251 for i in range(10_500))


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("blocking", "awaited"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_have_the_same_names_arguments_and_texts(blocking: type, awaited: type) -> None:
    assert public(blocking).keys() == public(awaited).keys()
    assert inspect.signature(blocking) == inspect.signature(awaited)
    methods = {name: m for name, m in public(blocking).items() if inspect.isfunction(m)}
    assert methods
    for name, method in methods.items():
        other = getattr(awaited, name)
        of_one, of_other = inspect.signature(method), inspect.signature(other)
        assert of_one.parameters == of_other.parameters, name
        returned = str(of_other.return_annotation).replace("Async", "")
        assert of_one.return_annotation == returned, name
        assert method.__doc__ == other.__doc__, name
        assert inspect.iscoroutinefunction(other) or name == "watch", name


def test_the_promised_calls_are_there() -> None:
    calls = "profile estimate profile_operators models model load_model unload_model server_info"
    jobs = "submit_job job jobs close"
    of_job = "id status watch wait cancel delete result download"

    assert {*calls.split(), *jobs.split()} <= public(Client).keys()
    assert {*of_job.split()} <= public(Job).keys()
    for method in (Client.profile, Client.submit_job, Job.result):
        assert "timeout" in inspect.signature(method).parameters
        assert "settings" not in inspect.signature(method).parameters


def run(
    server: Any, body: Callable[[AsyncClient], Coroutine[Any, Any, Any]], **options: Any
) -> Any:
    async def inside() -> Any:
        async with AsyncClient(server.address, timeout=20, **options) as client:
            return await body(client)

    return asyncio.run(inside())


def test_every_call_gives_what_the_blocking_one_gives(
    server: ReplayServer, ragged: Profile
) -> None:
    server.responses = list(messages_of(ragged))
    server.operator_responses = operator_answer([0, 1, 1, 1], [1], 4)
    operator = DenseOperator(np.tril(np.ones((1, 4, 4))))

    async def ask(client: AsyncClient) -> list[Any]:
        assert_same(await client.profile("tiny", ["a", "b", "c"]), ragged)
        result = await client.profile_operators(operator)
        return [
            result.ess.values.tolist(),
            await client.estimate("tiny", ["a"]),
            await client.models(),
            await client.model("tiny"),
            await client.load_model("tiny", random_init=3),
            await client.unload_model("tiny"),
            await client.server_info(),
        ]

    awaited = run(server, ask)
    with Client(server.address) as client:
        assert awaited == [
            client.profile_operators(operator).ess.values.tolist(),
            client.estimate("tiny", ["a"]),
            client.models(),
            client.model("tiny"),
            client.load_model("tiny", random_init=3),
            client.unload_model("tiny"),
            client.server_info(),
        ]


def test_cancelling_a_task_stops_the_servers_work(server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()

    async def leave(client: AsyncClient) -> None:
        task = asyncio.ensure_future(client.profile("tiny", ["a", "b", "c"]))
        await asyncio.to_thread(server.started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.ended.wait, 5)

    try:
        run(server, leave)
    finally:
        server.hold.set()


def test_many_profiles_run_beside_each_other(server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))
    together = threading.Barrier(4)  # The replay server's threads: breaks if they go one by one.
    server.on_profile = lambda: together.wait(10)

    async def ask(client: AsyncClient) -> list[Profile]:
        calls = (client.profile("tiny", ["a", "b", "c"]) for _ in range(100))
        return await asyncio.gather(*calls)

    profiles = run(server, ask)

    assert len(profiles) == 100
    for profile in profiles:
        assert_same(profile, ragged)


def test_a_loop_goes_on_while_a_call_waits(server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))
    server.failures = [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("ess-retry-after-ms", "400"),))
    ]

    async def tick(client: AsyncClient) -> float:
        call = asyncio.ensure_future(client.profile("tiny", ["a", "b", "c"]))
        longest, last = 0.0, time.monotonic()
        while not call.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        await call
        return longest

    assert run(server, tick) < 0.3
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_status_code_has_its_exception(server: ReplayServer, code: grpc.StatusCode) -> None:
    server.failure = (code, "tokens is 9000; the limit is 8192")

    async def fail(client: AsyncClient) -> None:
        await client.server_info()

    with pytest.raises(ess_client.EssError) as caught:
        run(server, fail, retries=0)

    assert caught.value.code is code
    assert caught.value.message.startswith("tokens is 9000; the limit is 8192")


def test_an_exception_in_the_callback_cancels_the_call(
    server: ReplayServer, ragged: Profile
) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()
    threading.Timer(0.2, server.hold.set).start()

    def stop(progress: Progress) -> None:
        raise RuntimeError("enough")

    async def ask(client: AsyncClient) -> None:
        with pytest.raises(RuntimeError, match="enough"):
            await client.profile("tiny", ["a", "b", "c"], progress=stop)
        assert await asyncio.to_thread(server.ended.wait, 5)

    run(server, ask)


def test_a_deadline_ends_a_call(server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()

    async def ask(client: AsyncClient) -> None:
        with pytest.raises(ess_client.DeadlineExceeded):
            await client.profile("tiny", ["a"], timeout=0.2)

    try:
        run(server, ask)
    finally:
        server.hold.set()


def test_a_job_is_submitted_watched_and_fetched(job_server: JobServer, tmp_path: Path) -> None:
    made = make_profile()
    made.save(tmp_path / "made")

    async def ask(client: AsyncClient) -> None:
        job = await client.submit_job("tiny", ["a", "b"], idempotency_key="k")
        assert isinstance(job, AsyncJob)
        states = []
        async for status in job.watch():
            states.append(status.state)
            if status.state == "queued":
                job_server.succeed(job.id, (tmp_path / "made").read_bytes())
        assert states == ["queued", "succeeded"]
        assert (await job.wait()).ended
        assert (await job.result()).prompt_ids == made.prompt_ids
        assert [(await client.job(job.id)).id] == [j.id for j in await client.jobs()]
        assert (await job.cancel()).state == "cancelled"
        assert (await job.status()).state == "cancelled"
        await job.delete()
        with pytest.raises(ess_client.NotFound):
            await job.status()

    run(job_server, ask)


def test_a_download_goes_on_where_its_connection_broke(
    job_server: JobServer, tmp_path: Path
) -> None:
    job_server.add()
    job_server.succeed("job-0", RESULT)
    job_server.fail("FetchJobResult", after=4)

    async def ask(client: AsyncClient) -> Path:
        return await (await client.job("job-0")).download(tmp_path / "r")

    assert run(job_server, ask).read_bytes() == RESULT
    offsets = [r.offset for name, r in job_server.calls if name == "FetchJobResult"]
    assert offsets == [0, 4000]


def test_leaving_a_watch_ends_its_call(job_server: JobServer) -> None:
    job_server.add()

    async def leave(client: AsyncClient) -> None:
        watching = (await client.job("job-0")).watch()
        async for _ in watching:
            break
        await watching.aclose()  # type: ignore[attr-defined]

    run(job_server, leave)
