"""Errors: one class per gRPC status code, so that a caller can catch what it can act on.

The server's message names the field, the value and the limit. What the client itself refuses
(a malformed measure, a selection, a shape) is raised with the same classes, before any call.
"""

from __future__ import annotations

from typing import Any, ClassVar

import grpc


class EssError(Exception):
    """A failed call. `code` is the gRPC status code, `message` the text that came with it.

    retry_after: seconds after which the server expects to have room; None where it said nothing.
    request_id: the `id` of the call's line in the server's log; None where no server answered.
    refused: the work had not begun, since nobody was reached or there was no place: trying again is
      safe whatever the call does.
    tries: how often the client has tried the call, in `seconds`.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        request_id: str | None = None,
        refused: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id
        self.refused = refused
        self.tries = 1
        self.seconds = 0.0

    def __str__(self) -> str:
        if self.tries == 1:
            return self.message
        return f"{self.message} ({self.tries} tries in {self.seconds:.1f} s)"


class Cancelled(EssError):
    """The caller gave up, or the job was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Unknown(EssError):
    """A failure without a code: a proxy's, most often."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(EssError, ValueError):
    """The request is wrong whatever the server's state: fix the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(EssError, TimeoutError):
    """`timeout` ran out. The server has stopped the work."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(EssError, LookupError):
    """No such model, whose message lists those there are, or no such job."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(EssError):
    """A model is loaded with other options, or an idempotency key was used for another job."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(EssError):
    """The token is good, and its role does not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(EssError):
    """A queue, a quota or memory is full: wait for retry_after, or send a smaller batch."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(EssError):
    """The model cannot be served, or the job is not done, as things are; the message says why."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(EssError):
    """The caller did not read its answer for too long."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(EssError):
    """Beyond the end of something that exists."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(EssError, NotImplementedError):
    """This server does not have it: do not retry."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(EssError):
    """A defect of the server, or an answer that breaks the protocol: report it."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(EssError, ConnectionError):
    """Nobody answers, or the server is starting or draining: retry with a pause."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(EssError):
    """Contents of a checkpoint or a result file that fail their check."""

    code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(EssError):
    """No token, or none that the server knows (docs/client.md, TLS and tokens)."""

    code = grpc.StatusCode.UNAUTHENTICATED


_BY_CODE: dict[grpc.StatusCode, type[EssError]] = {
    error.code: error
    for error in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def error_class(name: str) -> type[EssError]:
    """The class of a status code's name, such as "INVALID_ARGUMENT"."""
    return next((error for code, error in _BY_CODE.items() if code.name == name), Unknown)


def error_from_rpc(error: grpc.RpcError, address: str, hint: str = "") -> EssError:
    """The exception for a failed call to the server at `address`. hint: ends its message."""
    # Failed calls are the errors themselves; grpc's and grpc.aio's have the same methods.
    failed: Any = error if hasattr(error, "code") else None
    code = failed.code() if failed else grpc.StatusCode.UNKNOWN
    details = (failed.details() if failed else str(error)) or code.name
    unreached = code is grpc.StatusCode.UNAVAILABLE and any(t in details for t in _UNREACHED)
    if unreached:
        secure = "handshake failed" in details.lower()
        what = "no secure connection to" if secure else "no server answers at"
        details = f"{what} {address} ({details}{hint})"
    else:
        details += hint
    metadata = {k: str(value) for k, value in (failed.trailing_metadata() if failed else ()) or ()}
    milliseconds = metadata.get("ess-retry-after-ms", "")
    retry_after = int(milliseconds) / 1000 if milliseconds.isdigit() else None
    return _BY_CODE.get(code, Unknown)(
        details,
        retry_after=retry_after,
        request_id=metadata.get("ess-request-id"),
        refused=unreached or retry_after is not None,
    )


# gRPC's words where no connection came about. A connection that breaks has others.
_UNREACHED = ("failed to connect", "Failed to connect", "DNS resolution failed", "errors resolving")
