"""What the server says about a job, as a plain frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ess_client._proto.ess.v1 import jobs_pb2
from ess_client._requests import measure_from_message
from ess_client.errors import Cancelled, EssError, FailedPrecondition, error_class

STATES = {
    "queued": jobs_pb2.JOB_STATE_QUEUED,
    "running": jobs_pb2.JOB_STATE_RUNNING,
    "succeeded": jobs_pb2.JOB_STATE_SUCCEEDED,
    "failed": jobs_pb2.JOB_STATE_FAILED,
    "cancelled": jobs_pb2.JOB_STATE_CANCELLED,
}
PRIORITIES = {
    "low": jobs_pb2.JOB_PRIORITY_LOW,
    "normal": jobs_pb2.JOB_PRIORITY_NORMAL,
    "high": jobs_pb2.JOB_PRIORITY_HIGH,
}
_STATE_NAMES = {value: name for name, value in STATES.items()}
_PRIORITY_NAMES = {value: name for name, value in PRIORITIES.items()}


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment. Times are seconds since the Unix epoch, None while not reached.

    state: "queued", "running", "succeeded", "failed", "cancelled". error_code, error_message: why
    it failed. progress: in [0, 1], by layers of prompts. seconds_left: the server's estimate, None
    while it has none. run_seconds: of work, without waiting and restarts. restarts: of the server,
    since it started. result_bytes, result_sha256: of the file, when it succeeded.
    """

    id: str
    state: str
    model: str
    measures: tuple[str, ...]
    priority: str
    labels: Mapping[str, str]
    idempotency_key: str
    prompts_file: str
    prompts_done: int
    prompts_total: int
    progress: float
    seconds_left: float | None
    submitted_at: float | None
    started_at: float | None
    finished_at: float | None
    run_seconds: float
    restarts: int
    error_code: str
    error_message: str
    result_bytes: int
    result_sha256: str

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    def error(self) -> EssError | None:
        """Why there is no result; None when there is one."""
        if self.state == "succeeded":
            return None
        if self.state == "failed":
            kind = error_class(self.error_code)
            return kind(f"job {self.id} failed: {self.error_code}: {self.error_message}")
        if self.state == "cancelled":
            return Cancelled(f"job {self.id} was cancelled")
        done = f"{self.prompts_done} of {self.prompts_total} prompts are done"
        return FailedPrecondition(f"job {self.id} is {self.state}: {done}")


def status_from_message(message: jobs_pb2.Job) -> JobStatus:
    asked = message.specification
    return JobStatus(
        id=message.id,
        state=_STATE_NAMES.get(message.state, "unknown"),
        model=asked.model,
        measures=tuple(str(measure_from_message(measure)) for measure in asked.measures),
        priority=_PRIORITY_NAMES.get(asked.priority, "normal"),
        labels=dict(asked.labels),
        idempotency_key=asked.idempotency_key,
        prompts_file=asked.prompts_file,
        prompts_done=message.prompts_done,
        prompts_total=message.prompts_total,
        progress=message.progress,
        seconds_left=message.seconds_left if message.HasField("seconds_left") else None,
        submitted_at=message.submitted_at or None,
        started_at=message.started_at or None,
        finished_at=message.finished_at or None,
        run_seconds=message.run_seconds,
        restarts=message.restarts,
        error_code=message.error_code,
        error_message=message.error_message,
        result_bytes=message.result_bytes,
        result_sha256=message.result_sha256,
    )
