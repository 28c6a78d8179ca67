"""Client: the calls of an ESS Profiler server, blocking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, ClassVar

import grpc

from ess_client import _calls, _job_calls
from ess_client._binding import blocking, blocking_then
from ess_client._connection import Connection, request_of
from ess_client._retry import attempts
from ess_client._steps import Attempt, Call, Compute, Emit, Next, Open, Pause, Running, Script, T
from ess_client.errors import EssError
from ess_client.jobs import Job


class Client(Connection):
    __doc__ = f"{Connection.__doc__}\n    Thread-safe.\n"
    _grpc: ClassVar[Any] = grpc

    profile = blocking(_calls.profile)
    estimate = blocking(_calls.estimate)
    profile_operators = blocking(_calls.profile_operators)
    models = blocking(_calls.models)
    model = blocking(_calls.model)
    load_model = blocking(_calls.load_model)
    unload_model = blocking(_calls.unload_model)
    server_info = blocking(_calls.server_info)
    submit_job = blocking_then(_job_calls.submit_job, Job)
    job = blocking_then(_job_calls.job, Job)
    jobs = blocking_then(_job_calls.jobs, Job.each)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the calls still running on it."""
        self._channel.close()

    def _run(self, script: Script[T]) -> T:
        """Takes the steps of a script one after the other."""
        with closing(Running(script)) as running:
            while running.step is not None:
                self._advance(running)
            return running.value

    def _iterate(self, script: Script[None]) -> Iterator[Any]:
        """As _run, and hands out what the script emits."""
        with closing(Running(script)) as running:
            while running.step is not None:
                if isinstance(running.step, Emit):
                    yield running.step.value
                    running.send(None)
                else:
                    self._advance(running)

    def _advance(self, running: Running[Any]) -> None:
        try:
            result = self._perform(running.step)
        except EssError as error:
            running.throw(error)
        else:
            running.send(result)

    def _perform(self, step: Any) -> Any:
        if isinstance(step, Call):
            return self._run(attempts(step, self._settings.retries))
        if isinstance(step, Attempt):
            return self._attempt(step.call)
        if isinstance(step, Open):
            method = self._method(step.method)
            return method(step.request, timeout=step.seconds, metadata=self._metadata)
        if isinstance(step, Next):
            with self._errors():
                return next(step.stream, None)
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        assert isinstance(step, Compute)
        return step.function()

    def _attempt(self, call: Call) -> Any:
        method, seconds = self._method(call.method), call.deadline.left()
        with self._errors():
            answer = method(request_of(call), timeout=seconds, metadata=self._metadata)
            if call.collect is None:
                return answer
            collector = call.collect()
            try:
                for message in answer:
                    collector.add(message)
            finally:
                answer.cancel()  # Stops the server when we leave early; else without effect.
        return collector.take()
