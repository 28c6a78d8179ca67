"""What the shell completes by asking the server: models and jobs. Silent where that fails."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import typer

from ess_client.cli.connection import open_client
from ess_client.client import Client

SECONDS = 2.0  # A key press waits no longer.
Proposals = list[tuple[str, str]]  # What to type, and a word about it.


def model_names(ctx: typer.Context, incomplete: str) -> Proposals:
    return _ask(ctx, incomplete, lambda client: [(m.name, m.state) for m in client.models()])


def job_ids(ctx: typer.Context, incomplete: str) -> Proposals:
    return _ask(
        ctx,
        incomplete,
        lambda client: [(job.id, f"{job.info.state}, {job.info.model}") for job in client.jobs()],
    )


def _ask(ctx: typer.Context, incomplete: str, question: Callable[[Client], Proposals]) -> Proposals:
    """With a client of the options typed so far. Whatever goes wrong means no proposals."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_client(ctx.params, timeout=SECONDS, retries=0) as client:
            return [pair for pair in question(client) if pair[0].startswith(incomplete)]
    return []
