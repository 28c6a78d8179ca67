"""ess jobs: submit, list, watch, cancel, fetch, delete."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from ess_client import Client, Job, JobStatus
from ess_client.cli.completion import job_ids
from ess_client.cli.connection import connecting
from ess_client.cli.errors import JOB_ENDED_BADLY
from ess_client.cli.options import (
    Certify,
    Heads,
    Horizon,
    Json,
    Layers,
    Measures,
    Model,
    NoSpecialTokens,
    Positions,
    Reduce,
)
from ess_client.cli.output import (
    job_display,
    new_table,
    print_json,
    print_table,
    progress_display,
)
from ess_client.cli.prompts import iterate_prompts
from ess_client.errors import InvalidArgument

app = typer.Typer(
    no_args_is_help=True,
    help="Profiles of many prompts that the server works on without you.",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Of a job.", autocompletion=job_ids)]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Of jobs.", autocompletion=job_ids)]


@app.command()
@connecting
def submit(
    client: Client,
    model: Model,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE.jsonl",
            help='Lines of {"text": "..."} or {"token_ids": [...]}, optional "id"; - is stdin.',
        ),
    ] = None,
    prompts_file: Annotated[
        str | None,
        typer.Option("--prompts-file", metavar="NAME", help="Such a file of the server's folder."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt; repeatable.")
    ] = None,
    token_ids: Annotated[
        list[str] | None,
        typer.Option("--token-ids", metavar="1,2,3", help="A prompt; repeatable."),
    ] = None,
    measure: Measures = None,
    layers: Layers = None,
    heads: Heads = None,
    positions: Positions = None,
    horizon: Horizon = None,
    certify: Certify = False,
    reduce: Reduce = None,
    no_special_tokens: NoSpecialTokens = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="Submitting again with the same key and content gives the same job.",
        ),
    ] = None,
    priority: Annotated[
        Literal["low", "normal", "high"], typer.Option(help="Among jobs.")
    ] = "normal",
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.safetensors", help="Wait, and save here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Submits a job and prints its id."""
    given = bool(prompts or prompt or token_ids)
    if given == bool(prompts_file):
        raise InvalidArgument("give prompts (--prompts, --prompt, --token-ids) or --prompts-file")
    job = client.submit_job(
        model,
        iterate_prompts(prompt or [], prompts, token_ids or []) if given else None,
        prompts_file=prompts_file,
        measures=measure or None,
        layers=layers,
        heads=heads,
        positions=positions,
        horizon=horizon,
        certify=certify,
        reduce=reduce,
        add_special_tokens=False if no_special_tokens else None,
        idempotency_key=idempotency_key,
        priority=priority,
        labels=_labels(label or []),
    )
    follow = wait or output is not None
    if not as_json:
        typer.echo(job.id)
    status = job.info
    if follow:
        try:
            with job_display(as_json) as show:
                status = _follow(job, show)
        except KeyboardInterrupt:
            typer.echo(f"ess: job {job.id} goes on; `ess jobs watch {job.id}`", err=True)
            raise
    if output is not None and status.state == "succeeded":
        _fetch(job, output, as_json)
    if as_json:
        print_json(dataclasses.asdict(status))
    if follow:
        _end(status)


@app.command("list")
@connecting
def list_jobs(
    client: Client,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only these."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Your jobs, newest first."""
    found = [job.info for job in client.jobs(state)]
    if as_json:
        print_json([dataclasses.asdict(status) for status in found])
        return
    if not found:
        typer.echo("no jobs")
        return
    columns = [("job", False), ("state", False), ("model", False), ("prompts", True)]
    columns += [("submitted", False), ("left", True), ("priority", False), ("note", False)]
    table = new_table(*columns)
    for status in found:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(status.labels.items()))
        table.add_row(
            escape(status.id),
            status.state,
            escape(status.model),
            f"{status.prompts_done}/{status.prompts_total}",
            _time(status.submitted_at),
            "" if status.seconds_left is None or status.ended else f"{status.seconds_left:.0f} s",
            status.priority,
            escape(f"{status.error_code}: {status.error_message}" if status.error_code else labels),
        )
    print_table(table)


@app.command()
@connecting
def watch(client: Client, job: Id, as_json: Json = False) -> None:
    """Shows how a job gets on until it has ended. --json: one object per change and line."""
    if as_json:
        show: Callable[[JobStatus], None] = lambda status: typer.echo(  # noqa: E731
            json.dumps(dataclasses.asdict(status), ensure_ascii=False)
        )
        _end(_follow(client.job(job), show))
        return
    with job_display(quiet=False) as show:
        status = _follow(client.job(job), show)
    if status.state == "succeeded":
        done = f"{status.prompts_done} prompts in {status.run_seconds:.1f} s"
        restarts = f"; restarts of the server: {status.restarts}" if status.restarts else ""
        typer.echo(f"job {status.id} succeeded: {done}{restarts}")
    _end(status)


@app.command()
@connecting
def cancel(client: Client, jobs: Ids, as_json: Json = False) -> None:
    """Stops jobs that have not ended."""
    ended = [client.job(job).cancel() for job in jobs]
    if as_json:
        print_json([dataclasses.asdict(status) for status in ended])
        return
    for status in ended:
        typer.echo(f"{status.id}: {status.state}")


@app.command()
@connecting
def fetch(
    client: Client,
    job: Id,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.safetensors")],
    wait: Annotated[bool, typer.Option("--wait", help="For the end of the job.")] = False,
    as_json: Json = False,
) -> None:
    """Downloads a job's result. A download that was broken off goes on where it stopped."""
    handle = client.job(job)
    status = handle.info
    if wait and not status.ended:
        with job_display(as_json) as show:
            status = _follow(handle, show)
    if status.ended:
        _end(status)
    _fetch(handle, output, as_json)
    if as_json:
        print_json(dataclasses.asdict(handle.status()) | {"output": str(output)})
    else:
        typer.echo(f"saved {output}")


@app.command()
@connecting
def delete(client: Client, jobs: Ids, as_json: Json = False) -> None:
    """Deletes jobs and their results."""
    for job in jobs:
        client.job(job).delete()
        if not as_json:
            typer.echo(f"deleted {job}")
    if as_json:
        print_json({"deleted": jobs})


def _follow(job: Job, show: Callable[[JobStatus], None]) -> JobStatus:
    status = job.info
    for status in job.watch():
        show(status)
    return status


def _fetch(job: Job, output: Path, quiet: bool) -> None:
    with progress_display(quiet, "bytes", "download") as progress:
        job.download(output, wait=False, progress=progress)


def _end(status: JobStatus) -> None:
    """Nothing for a job that succeeded; else why it did not, and the exit code of that."""
    error = status.error()
    if error is not None:
        typer.echo(f"ess: {error}", err=True)
        raise typer.Exit(JOB_ENDED_BADLY)


def _labels(pairs: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        name, sign, labels[name] = pair.partition("=")
        if not (name and sign):
            raise InvalidArgument(f"--label '{pair}' is not like run=7")
    return labels


def _time(seconds: float | None) -> str:
    """In local time."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
