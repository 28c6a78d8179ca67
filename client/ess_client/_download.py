"""The result of a job as a local file: in pieces that survive a break, checked, put in place."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ess_client import _retry
from ess_client._job_status import JobStatus
from ess_client._proto.ess.v1 import jobs_pb2
from ess_client._retry import Tries
from ess_client._steps import Attempt, Call, Compute, Deadline, Pause, Script
from ess_client._stream import Progress
from ess_client.errors import DataLoss, DeadlineExceeded, EssError, Internal
from ess_client.settings import Settings

try:
    import fcntl
except ImportError:  # Not on Windows; two downloads of one file then disturb each other.
    fcntl = None  # type: ignore[assignment]

FETCH_SECONDS = 600.0  # Of one FetchJobResult; a longer download makes another.
_BLOCK = 1 << 20


class PartialFile:
    """`.NAME.SHA.part` beside the target: the first bytes of the result, from one or more calls.

    The name holds the digest of the whole, so that parts of different results are never mixed. A
    lock keeps a second process away. As a collector it takes the answers of FetchJobResult.
    """

    def __init__(
        self, target: Path, job: JobStatus, progress: Callable[[Progress], None] | None
    ) -> None:
        self._target = target
        self._job = job
        self._progress = progress
        self._path = target.with_name(f".{target.name}.{job.result_sha256[:16]}.part")
        self._digest = hashlib.sha256()
        self._file = open(self._path, "a+b")  # noqa: SIM115
        self.size = 0
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            reason = "another process downloads this result to the same place"
            raise OSError(errno.EBUSY, reason, str(target)) from None

    @property
    def complete(self) -> bool:
        return self.size == self._job.result_bytes

    def resume(self) -> None:
        """Takes up what an earlier download has left; reads it, for its digest."""
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._digest.update(block)
            self.size += len(block)
        if self.size > self._job.result_bytes:
            self.restart()
        self._report()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.size = hashlib.sha256(), 0

    def add(self, answer: jobs_pb2.FetchJobResultResponse) -> None:
        if (answer.offset, answer.total_bytes) != (self.size, self._job.result_bytes):
            raise Internal(
                f"job {self._job.id}: bytes from {answer.offset} on of {answer.total_bytes} came; "
                f"those from {self.size} on of {self._job.result_bytes} were to come"
            )
        if self.size + len(answer.data) > self._job.result_bytes:
            raise Internal(f"job {self._job.id}: more than {self._job.result_bytes} bytes came")
        self._file.write(answer.data)
        self._digest.update(answer.data)
        self.size += len(answer.data)
        self._report()

    def take(self) -> None:
        if not self.complete:
            raise Internal(
                f"job {self._job.id}: the answer ended at byte {self.size} of "
                f"{self._job.result_bytes}"
            )

    def finish(self) -> None:
        """Checks the digest and puts the file in place. Raises DataLoss, and is then empty."""
        if self._digest.hexdigest() != self._job.result_sha256:
            found = self._digest.hexdigest()
            self.restart()
            raise DataLoss(
                f"the result of job {self._job.id} has SHA-256 {found}, not "
                f"{self._job.result_sha256}"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, self._target)

    def close(self) -> None:
        """Keeps what has come, for another try. An empty file goes."""
        if self.size == 0:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(Progress(self.size, self._job.result_bytes, ""))


def fetch(
    settings: Settings,
    job: JobStatus,
    target: Path,
    deadline: Deadline,
    progress: Callable[[Progress], None] | None,
) -> Script[Path]:
    """Downloads the result of a job that has succeeded."""
    part = PartialFile(target, job, progress)
    try:
        yield Compute(part.resume)
        resumed = part.size > 0
        while True:
            yield from _fill(settings, job, part, deadline)
            try:
                yield Compute(part.finish)
                return target
            except DataLoss:
                if not resumed:
                    raise
                resumed = False  # What an earlier download left was no good: once more, whole.
    finally:
        part.close()


def _fill(
    settings: Settings, job: JobStatus, part: PartialFile, deadline: Deadline
) -> Script[None]:
    """Calls FetchJobResult until all bytes are there, each time from where it broke."""
    tries = Tries(settings.retries, None, deadline, _retry.PATIENCE)
    while not part.complete:
        before = part.size
        request = jobs_pb2.FetchJobResultRequest(id=job.id, offset=before)
        own = Deadline(min(FETCH_SECONDS, deadline.left()))
        try:
            yield Attempt(Call("FetchJobResult", request, own, collect=lambda: part))
        except DeadlineExceeded:
            deadline.left()  # Raises when it is the caller's.
            if part.size == before:
                raise
        except EssError as error:
            if part.size > before:
                tries.progressed()
            yield Pause(tries.pause_after(error))
