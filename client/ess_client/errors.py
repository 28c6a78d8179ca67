"""Errors: one class per gRPC status code, so that a caller can catch what it can act on.

The server's message names the field, the value and the limit. What the client itself refuses
(a malformed measure, a selection, a shape) is raised with the same classes, before any call.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class EssError(Exception):
    """A failed call. `code` is the gRPC status code, `message` the text that came with it.

    retry_after: seconds after which the server expects to have room; None where it said nothing.
    request_id: the `id` of the call's line in the server's log; None where no server answered.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self, message: str, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id


class Cancelled(EssError):
    code = grpc.StatusCode.CANCELLED


class Unknown(EssError):
    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(EssError, ValueError):
    """The request is wrong whatever the server's state: fix the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(EssError, TimeoutError):
    """`timeout` ran out. The server has stopped the work."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(EssError, LookupError):
    """No such model. The message lists those there are."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(EssError):
    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(EssError):
    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(EssError):
    """A queue, a quota or memory is full: wait for retry_after, or send a smaller batch."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(EssError):
    """The model cannot be served as things are; the message says why."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(EssError):
    """The caller did not read its answer for too long."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(EssError):
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


def error_from_rpc(error: grpc.RpcError, address: str) -> EssError:
    """The exception for a failed call to the server at `address`."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call) else str(error)) or code.name
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        details = f"no server answers at {address} ({details})"
    trailing = error.trailing_metadata() if isinstance(error, grpc.Call) else None
    metadata = {key: str(value) for key, value in trailing or ()}
    milliseconds = metadata.get("ess-retry-after-ms", "")
    return _BY_CODE.get(code, Unknown)(
        details,
        retry_after=int(milliseconds) / 1000 if milliseconds.isdigit() else None,
        request_id=metadata.get("ess-request-id"),
    )
