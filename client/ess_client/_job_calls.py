"""The calls of jobs, as scripts (see _calls). Those of one job have its id beside the settings."""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal

from ess_client import _requests, _retry
from ess_client._download import fetch
from ess_client._job_status import PRIORITIES, STATES, JobStatus, status_from_message
from ess_client._prompt_lines import PromptLines
from ess_client._proto.ess.v1 import jobs_pb2
from ess_client._retry import Tries
from ess_client._steps import Call, Compute, Deadline, Emit, Next, Open, Pause, Script
from ess_client._stream import Progress
from ess_client.errors import DeadlineExceeded, EssError, InvalidArgument, Unavailable
from ess_client.measures import parse_measures
from ess_client.profile import Profile
from ess_client.selection import IndexSpec, LayerSpec
from ess_client.settings import QUERY_SECONDS, WORK_SECONDS, Settings
from ess_client.storage import load_profile

PAGE = 1000  # Jobs of one answer of ListJobs: the most there may be.
WATCH_SECONDS = 600.0  # Of one WatchJob; a longer wait makes another.


def submit_job(
    settings: Settings,
    /,
    model: str,
    prompts: str | Iterable[_requests.PromptSpec] | None = None,
    *,
    token_ids: Iterable[Iterable[int]] | None = None,
    prompts_file: str | None = None,
    measures: str | Iterable[str] | None = None,
    layers: LayerSpec = None,
    heads: IndexSpec = None,
    positions: IndexSpec = None,
    horizon: int | None = None,
    certify: bool = False,
    reduce: Literal["heads", "positions"] | None = None,
    add_special_tokens: bool | None = None,
    idempotency_key: str | None = None,
    priority: Literal["low", "normal", "high"] = "normal",
    labels: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Script[JobStatus]:
    """Hands a profile of any number of prompts to the server, which keeps it through restarts.

    prompts, token_ids: as of `profile`, in any number: an iterable is read once, and kept on disk
      where it is large. Instead: prompts_file, JSON lines under the server's folder of prompts.
    The options are those of `profile`.
    idempotency_key: the same key with the same content is the same job, however often it is
      submitted; with other content AlreadyExists is raised. None: a new one, so that a call which
      is tried again submits one job.
    priority: "low", "normal" or "high", among jobs. labels: at most 16, for your own use.
    """
    chosen = _requests.only_given(prompts=prompts, token_ids=token_ids, prompts_file=prompts_file)
    if priority not in PRIORITIES:
        raise InvalidArgument(f"priority is {priority!r}; it is one of {', '.join(PRIORITIES)}")
    specification = jobs_pb2.JobSpecification(
        model=model,
        measures=[_requests.measure_message(measure) for measure in parse_measures(measures)],
        options=_requests.options_message(horizon, certify, reduce),
        layers=_requests.layer_message(layers),
        heads=_requests.index_message(heads, "heads"),
        positions=_requests.index_message(positions, "positions"),
        add_special_tokens=add_special_tokens,
        prompts_file=prompts_file,
        idempotency_key=idempotency_key or f"once-{uuid.uuid4().hex}",
        priority=PRIORITIES[priority],
        labels=labels,
    )
    lines: PromptLines | None = None
    if chosen != "prompts_file":
        lines = yield Compute(partial(PromptLines, _requests.prompt_specs(prompts, token_ids)))
    try:
        messages = partial(_submission, specification, lines)
        message = yield Call("SubmitJob", messages, settings.deadline(timeout, WORK_SECONDS))
    finally:
        if lines is not None:
            lines.close()
    return status_from_message(message)


def _submission(
    specification: jobs_pb2.JobSpecification, lines: PromptLines | None
) -> Iterator[jobs_pb2.SubmitJobRequest]:
    yield jobs_pb2.SubmitJobRequest(specification=specification)
    for piece in lines.pieces() if lines is not None else ():
        yield jobs_pb2.SubmitJobRequest(prompts=jobs_pb2.JobPrompts(json_lines=piece))


def job(settings: Settings, /, id: str, *, timeout: float | None = None) -> Script[JobStatus]:
    """A job by its id, perhaps submitted by another process. Raises NotFound."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    return status_from_message((yield Call("GetJob", jobs_pb2.GetJobRequest(id=id), deadline)))


def jobs(
    settings: Settings, /, state: str | None = None, *, timeout: float | None = None
) -> Script[list[JobStatus]]:
    """All jobs, or those in a state, newest first. timeout: of all pages together."""
    if state is not None and state not in STATES:
        raise InvalidArgument(f"state is {state!r}; it is one of {', '.join(STATES)}")
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    request = jobs_pb2.ListJobsRequest(state=STATES[state] if state else None, page_size=PAGE)
    found: list[JobStatus] = []
    while True:
        response = yield Call("ListJobs", request, deadline)
        found += [status_from_message(message) for message in response.jobs]
        if not response.next_page_token:
            return found
        request = jobs_pb2.ListJobsRequest(
            state=request.state, page_size=PAGE, page_token=response.next_page_token
        )


def status(
    settings: Settings, job_id: str, /, *, timeout: float | None = None
) -> Script[JobStatus]:
    """The job now."""
    return (yield from job(settings, job_id, timeout=timeout))


def watch(settings: Settings, job_id: str, /, *, timeout: float | None = None) -> Script[None]:
    """The job now, then whenever it has changed, until it has ended.

    Where the connection breaks, it goes on with the job as it then is. timeout: of all.
    """
    yield from _follow(settings, job_id, settings.deadline(timeout, math.inf), emit=True)


def wait(settings: Settings, job_id: str, /, *, timeout: float | None = None) -> Script[JobStatus]:
    """The job when it has ended: "succeeded", "failed" or "cancelled"."""
    deadline = settings.deadline(timeout, math.inf)
    return (yield from _follow(settings, job_id, deadline, emit=False))


def cancel(
    settings: Settings, job_id: str, /, *, timeout: float | None = None
) -> Script[JobStatus]:
    """Stops the job, where it has not ended, and returns it. It stays until it is deleted."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    message = yield Call("CancelJob", jobs_pb2.CancelJobRequest(id=job_id), deadline)
    return status_from_message(message)


def delete(settings: Settings, job_id: str, /, *, timeout: float | None = None) -> Script[None]:
    """Deletes the job and its result."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    yield Call("DeleteJob", jobs_pb2.DeleteJobRequest(id=job_id), deadline, losses=0)


def download(
    settings: Settings,
    job_id: str,
    /,
    path: str | PathLike[str],
    *,
    wait: bool = True,
    timeout: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Script[Path]:
    """Writes the result to a file, atomically, and returns its path.

    A download that was broken off goes on where it stopped, also in a new process, and the whole
    file is checked against the server's SHA-256. wait: for the end of the job; else
    FailedPrecondition is raised before it. progress: called with bytes. Of a job that failed, the
    error of its code is raised; of one that was cancelled, Cancelled.
    """
    deadline = settings.deadline(timeout, math.inf)
    if wait:
        ended = yield from _follow(settings, job_id, deadline, emit=False)
    else:
        ended = yield from job(settings, job_id, timeout=min(QUERY_SECONDS, deadline.left()))
    error = ended.error()
    if error is not None:
        raise error
    return (yield from fetch(settings, ended, Path(path), deadline, progress))


def result(
    settings: Settings,
    job_id: str,
    /,
    path: str | PathLike[str] | None = None,
    *,
    wait: bool = True,
    timeout: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Script[Profile]:
    """The profile that the job has made. path: keeps the file there.

    The rest as `download`, which leaves the file and does not read it: for results that memory does
    not hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "result.safetensors" if path is None else path
        file = yield from download(
            settings, job_id, target, wait=wait, timeout=timeout, progress=progress
        )
        profile: Profile = yield Compute(partial(load_profile, file))
    return profile


def _follow(settings: Settings, job_id: str, deadline: Deadline, emit: bool) -> Script[JobStatus]:
    """Watches the job to its end; emits it at each change."""
    tries = Tries(settings.retries, None, deadline, _retry.PATIENCE)
    last: JobStatus | None = None
    while True:
        seconds = min(WATCH_SECONDS, deadline.left())
        stream = yield Open("WatchJob", jobs_pb2.WatchJobRequest(id=job_id), seconds)
        try:
            while (message := (yield Next(stream))) is not None:
                tries.progressed()
                now = status_from_message(message)
                changed, last = now != last, now
                if changed and emit:
                    yield Emit(now)
            if last is not None and last.ended:
                return last
            raise Unavailable(f"the server stopped telling about job {job_id} before its end")
        except DeadlineExceeded:
            deadline.left()  # Raises when it is ours; else another WatchJob follows.
            continue
        except EssError as error:
            pause = tries.pause_after(error)
        finally:
            stream.cancel()
        yield Pause(pause)
