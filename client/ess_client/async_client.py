"""AsyncClient: the calls of an ESS Profiler server, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from types import TracebackType
from typing import Any, ClassVar

import grpc.aio

from ess_client import _calls, _job_calls
from ess_client._binding import awaiting, awaiting_then
from ess_client._connection import Connection, request_of
from ess_client._retry import attempts
from ess_client._steps import Attempt, Call, Compute, Emit, Next, Open, Pause, Running, Script, T
from ess_client.errors import EssError
from ess_client.jobs import AsyncJob


class AsyncClient(Connection):
    __doc__ = f"""{Connection.__doc__}
    Belongs to the event loop of its first call. Cancelling the task of a call stops the server's
    work. Calls of many tasks run beside each other on one connection.
    """
    _grpc: ClassVar[Any] = grpc.aio

    profile = awaiting(_calls.profile)
    estimate = awaiting(_calls.estimate)
    profile_operators = awaiting(_calls.profile_operators)
    models = awaiting(_calls.models)
    model = awaiting(_calls.model)
    load_model = awaiting(_calls.load_model)
    unload_model = awaiting(_calls.unload_model)
    server_info = awaiting(_calls.server_info)
    submit_job = awaiting_then(_job_calls.submit_job, AsyncJob)
    job = awaiting_then(_job_calls.job, AsyncJob)
    jobs = awaiting_then(_job_calls.jobs, AsyncJob.each)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and the calls still running on it."""
        if self._channel is not None:
            await self._channel.close()

    async def _run(self, script: Script[T]) -> T:
        """Takes the steps of a script one after the other."""
        with closing(Running(script)) as running:
            while running.step is not None:
                await self._advance(running)
            return running.value

    async def _iterate(self, script: Script[None]) -> AsyncIterator[Any]:
        """As _run, and hands out what the script emits."""
        with closing(Running(script)) as running:
            while running.step is not None:
                if isinstance(running.step, Emit):
                    yield running.step.value
                    running.send(None)
                else:
                    await self._advance(running)

    async def _advance(self, running: Running[Any]) -> None:
        try:
            result = await self._perform(running.step)
        except EssError as error:
            running.throw(error)
        else:
            running.send(result)

    async def _perform(self, step: Any) -> Any:
        if isinstance(step, Call):
            return await self._run(attempts(step, self._settings.retries))
        if isinstance(step, Attempt):
            return await self._attempt(step.call)
        if isinstance(step, Open):
            method = self._method(step.method)
            return method(step.request, timeout=step.seconds, metadata=self._metadata)
        if isinstance(step, Next):
            with self._errors():
                message = await step.stream.read()
            return None if message is grpc.aio.EOF else message
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Compute)
        return await asyncio.to_thread(step.function)

    async def _attempt(self, call: Call) -> Any:
        method, seconds = self._method(call.method), call.deadline.left()
        with self._errors():
            answer = method(request_of(call), timeout=seconds, metadata=self._metadata)
            if call.collect is None:
                return await answer
            collector = call.collect()
            try:
                async for message in answer:
                    collector.add(message)
            finally:
                answer.cancel()  # Stops the server when we leave early; else without effect.
        return collector.take()
