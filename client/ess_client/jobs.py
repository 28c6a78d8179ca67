"""Jobs: profiles that outlive the connection. What is known of one, and handles to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ess_client import _job_calls
from ess_client._binding import (
    awaiting_of_job,
    blocking_of_job,
    iterating_async_of_job,
    iterating_of_job,
)
from ess_client._job_status import JobStatus

__all__ = ["AsyncJob", "Job", "JobStatus"]


class _Handle:
    """id: of the job. info: what was known of it when this was made; `status` asks again."""

    def __init__(self, client: Any, info: JobStatus) -> None:
        self._client = client
        self.info = info

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.info.state} when asked last)"

    @property
    def _bound(self) -> tuple[Any, str]:
        """The first arguments of the scripts that are methods here (_binding)."""
        return (*self._client._bound, self.id)

    def _run(self, script: Any) -> Any:
        return self._client._run(script)

    def _iterate(self, script: Any) -> Any:
        return self._client._iterate(script)


class Job(_Handle):
    __doc__ = f"A job of the server, from Client.submit_job, job or jobs.\n\n    {_Handle.__doc__}"

    status = blocking_of_job(_job_calls.status)
    watch = iterating_of_job(_job_calls.watch, JobStatus)
    wait = blocking_of_job(_job_calls.wait)
    cancel = blocking_of_job(_job_calls.cancel)
    delete = blocking_of_job(_job_calls.delete)
    download = blocking_of_job(_job_calls.download)
    result = blocking_of_job(_job_calls.result)

    @classmethod
    def each(cls, client: Any, statuses: Iterable[JobStatus]) -> list[Job]:
        return [cls(client, status) for status in statuses]


class AsyncJob(_Handle):
    __doc__ = f"A job of the server, from AsyncClient.\n\n    {_Handle.__doc__}"

    status = awaiting_of_job(_job_calls.status)
    watch = iterating_async_of_job(_job_calls.watch, JobStatus)
    wait = awaiting_of_job(_job_calls.wait)
    cancel = awaiting_of_job(_job_calls.cancel)
    delete = awaiting_of_job(_job_calls.delete)
    download = awaiting_of_job(_job_calls.download)
    result = awaiting_of_job(_job_calls.result)

    @classmethod
    def each(cls, client: Any, statuses: Iterable[JobStatus]) -> list[AsyncJob]:
        return [cls(client, status) for status in statuses]
