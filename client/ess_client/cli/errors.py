"""Exit codes, and how an error becomes one line on stderr."""

from __future__ import annotations

import warnings
from typing import Any

import grpc
import typer
from typer.core import TyperGroup

from ess_client.errors import EssError

LOCAL_FILE = 10
JOB_ENDED_BADLY = 11
INTERRUPTED = 130

# Code, what it means, and the gRPC codes that lead to it.
FAMILIES: tuple[tuple[int, str, tuple[grpc.StatusCode, ...]], ...] = (
    (
        3,
        "the request is wrong",
        (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE),
    ),
    (
        4,
        "no such model, or it cannot be served as things are",
        (
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.ALREADY_EXISTS,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
        ),
    ),
    (
        5,
        "a queue, a quota or memory is full",
        (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED),
    ),
    (6, "no server answers, or it is starting or stopping", (grpc.StatusCode.UNAVAILABLE,)),
    (
        7,
        "out of time, or cancelled",
        (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED),
    ),
    (
        8,
        "a defect of the server or a corrupt file",
        (grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN),
    ),
    (9, "this server does not have it", (grpc.StatusCode.UNIMPLEMENTED,)),
)


def exit_code(error: EssError) -> int:
    return next(code for code, _, statuses in FAMILIES if error.code in statuses)


def exit_code_help() -> str:
    rows = [(0, "done"), (2, "wrong command line"), *((code, text) for code, text, _ in FAMILIES)]
    rows += [(LOCAL_FILE, "a local file cannot be read or written")]
    rows += [(JOB_ENDED_BADLY, "the job failed or was cancelled"), (INTERRUPTED, "interrupted")]
    return "Exit codes: " + "; ".join(f"{code} {text}" for code, text in rows) + "."


class Commands(TyperGroup):
    """The command group that turns errors into a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except EssError as error:
            code = exit_code(error)
            request = f" (request {error.request_id})" if error.request_id else ""
            typer.echo(f"ess: {error.code.name}: {_one_line(str(error))}{request}", err=True)
        except OSError as error:
            code = LOCAL_FILE
            reason = error.strerror or str(error)
            name = f"{error.filename}: " if error.filename else ""
            typer.echo(f"ess: {name}{_one_line(reason)}", err=True)
        except KeyboardInterrupt:
            code = INTERRUPTED
            typer.echo("ess: interrupted", err=True)
        raise typer.Exit(code)


def _show_warning(message: Warning | str, *details: Any, **more: Any) -> None:
    typer.echo(f"ess: warning: {_one_line(str(message))}", err=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
