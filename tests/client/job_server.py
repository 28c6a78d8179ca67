"""A real gRPC server with jobs in memory, which go on when a test says so."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from ess_client._proto.ess.v1 import jobs_pb2, profiler_pb2_grpc

PIECE = 1000  # Bytes of an answer of FetchJobResult.


class JobServer(profiler_pb2_grpc.EssProfilerServicer):
    """Job calls. `failures` holds (method, code, text, trailing metadata, after how many answers),
    and each is used up by the first call of its method."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.results: dict[str, bytes] = {}
        self.lines: dict[str, list[bytes]] = {}  # The pieces of each submission, by key.
        self.failures: list[tuple[str, grpc.StatusCode, str, tuple[Any, ...], int]] = []
        self.calls: list[tuple[str, Any]] = []
        self.page = 1000
        self._changed = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        profiler_pb2_grpc.add_EssProfilerServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> JobServer:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._changed.notify_all()
        self._server.stop(0).wait()

    def add(self, state: int = jobs_pb2.JOB_STATE_QUEUED, **fields: Any) -> jobs_pb2.Job:
        with self._changed:
            id = f"job-{len(self.jobs)}"
            self.jobs[id] = jobs_pb2.Job(id=id, state=state, **fields)
            return self.jobs[id]

    def move(self, id: str, **fields: Any) -> None:
        """Changes a job, and tells those who watch it."""
        with self._changed:
            for name, value in fields.items():
                setattr(self.jobs[id], name, value)
            self._changed.notify_all()

    def succeed(self, id: str, result: bytes) -> None:
        self.results[id] = result
        self.move(
            id,
            state=jobs_pb2.JOB_STATE_SUCCEEDED,
            progress=1.0,
            result_bytes=len(result),
            result_sha256=hashlib.sha256(result).hexdigest(),
        )

    def fail(
        self,
        method: str,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        text: str = "the server is shutting down",
        trailing: tuple[Any, ...] = (),
        after: int = 0,
    ) -> None:
        self.failures.append((method, code, text, trailing, after))

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.calls)

    def SubmitJob(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        specification = next(request_iterator).specification
        pieces = [request.prompts.json_lines for request in request_iterator]
        key = specification.idempotency_key
        known = next(
            (j for j in self.jobs.values() if j.specification.idempotency_key == key), None
        )
        if known is not None and self.lines[key] != pieces:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"idempotency_key: '{key}' is taken")
        self.lines[key] = pieces
        job = known or self.add(specification=specification)
        job.prompts_total = sum(piece.count(b"\n") for piece in pieces)
        self._begin("SubmitJob", specification, context)
        return job

    def GetJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin("GetJob", request, context)
        return self._find(request.id, context)

    def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin("ListJobs", request, context)
        jobs = [j for j in reversed(self.jobs.values()) if request.state in (0, j.state)]
        first = int(request.page_token or 0)
        after = first + min(self.page, request.page_size or 100)
        return jobs_pb2.ListJobsResponse(
            jobs=jobs[first:after], next_page_token=str(after) if after < len(jobs) else ""
        )

    def WatchJob(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        failure = self._failure("WatchJob")
        self.calls.append(("WatchJob", request))
        job = self._find(request.id, context)
        sent, last = 0, None
        while context.is_active():
            if failure is not None and sent == failure[3]:
                self._abort(context, failure)
            with self._changed:
                if last == job:
                    self._changed.wait(0.05)
                    continue
                last = jobs_pb2.Job()
                last.CopyFrom(job)
            yield last
            sent += 1
            if last.state >= jobs_pb2.JOB_STATE_SUCCEEDED:
                return

    def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin("CancelJob", request, context)
        job = self._find(request.id, context)
        self.move(request.id, state=jobs_pb2.JOB_STATE_CANCELLED)
        return job

    def DeleteJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._begin("DeleteJob", request, context)
        self._find(request.id, context)
        del self.jobs[request.id]
        return jobs_pb2.DeleteJobResponse()

    def FetchJobResult(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        failure = self._failure("FetchJobResult")
        self.calls.append(("FetchJobResult", request))
        self._find(request.id, context)
        result = self.results[request.id]
        for sent, first in enumerate(range(request.offset, len(result), PIECE)):
            if failure is not None and sent == failure[3]:
                self._abort(context, failure)
            yield jobs_pb2.FetchJobResultResponse(
                offset=first, data=result[first : first + PIECE], total_bytes=len(result)
            )

    def _begin(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        failure = self._failure(method)
        if failure is not None:
            self._abort(context, failure)

    def _failure(self, method: str) -> tuple[grpc.StatusCode, str, tuple[Any, ...], int] | None:
        index = next((i for i, f in enumerate(self.failures) if f[0] == method), None)
        return None if index is None else self.failures.pop(index)[1:]

    @staticmethod
    def _abort(context: Any, failure: tuple[grpc.StatusCode, str, tuple[Any, ...], int]) -> None:
        context.set_trailing_metadata(failure[2])
        context.abort(failure[0], failure[1])

    def _find(self, id: str, context: Any) -> jobs_pb2.Job:
        if id not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"id: there is no job '{id}'")
        return self.jobs[id]
