"""What the commands print: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table

from ess_client._stream import Progress
from ess_client._text import number
from ess_client.jobs import JobStatus
from ess_client.profile import Profile

MAX_PROMPT_ROWS = 20


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(table: Table) -> None:
    # A pipe has no width: lines are then as long as they need to be.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def new_table(*columns: tuple[str, bool], title: str | None = None) -> Table:
    """Columns are (heading, whether they hold numbers)."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for heading, is_number in columns:
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    return table


def summary(profile: Profile) -> list[dict[str, Any]]:
    """Per prompt: tokens, and average, total and utilization of each measure; None for NaN."""
    average, total = profile.average(by=["prompt"]), profile.total(by=["prompt"])
    used = profile.utilization(by=["prompt"])
    rows = []
    for index, prompt in enumerate(profile.prompts):
        measures = {
            str(name): {
                "average": _finite(float(average[m, index])),
                "total": _finite(float(total[m, index])),
                "utilization": _finite(float(used[m, index])),
            }
            for m, name in enumerate(average.coords["measure"].values)
        }
        rows.append({"id": prompt.id, "tokens": prompt.length, "measures": measures})
    return rows


def print_summary(profile: Profile) -> None:
    title = f"{profile.model.get('name', '')}: {len(profile.layers)} operators"
    columns = [("prompt", False), ("tokens", True), ("measure", False)]
    columns += [("average ESS", True), ("total ESS", True), ("utilization", True)]
    table = new_table(*columns, title=escape(title))
    rows = summary(profile)
    for row in rows[:MAX_PROMPT_ROWS]:
        for index, (measure, values) in enumerate(row["measures"].items()):
            used = values["utilization"]
            table.add_row(
                escape(row["id"]) if index == 0 else "",
                str(row["tokens"]) if index == 0 else "",
                measure,
                _number(values["average"]),
                _number(values["total"]),
                "-" if used is None else f"{used:.1%}",
            )
    print_table(table)
    if len(rows) > MAX_PROMPT_ROWS:
        typer.echo(f"and {len(rows) - MAX_PROMPT_ROWS} more prompts")
    for name in profile.measure_names:
        pairs = sum(layer.below_noise_floor.get(name, 0) for layer in profile.layers)
        if pairs:
            heads = sum(len(layer.heads) for layer in profile.layers) * len(profile.prompts)
            typer.echo(f"{name} lies below the noise floor of {pairs} of {heads} heads and prompts")


@contextmanager
def progress_display(quiet: bool, unit: str, working: str) -> Iterator[Callable[[Progress], None]]:
    """A callback that draws a bar on a terminal and writes about ten plain lines elsewhere.

    unit: what is counted; "bytes" are shown as MB. working: what goes on while no operator is
    named.
    """
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task("waiting for the server", total=None)
            yield lambda progress: bar.update(
                task,
                description=f"operator {progress.layer}" if progress.layer else working,
                completed=progress.done,
                total=progress.total,
            )
    else:
        yield _plain_lines(unit)


@contextmanager
def job_display(quiet: bool) -> Iterator[Callable[[JobStatus], None]]:
    """The same of a job: a bar on a terminal, plain lines at its states and tenths elsewhere."""
    if quiet:
        yield lambda status: None
    elif sys.stderr.isatty():
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task("job", total=1, detail="")
            yield lambda status: bar.update(
                task, description=status.state, completed=status.progress, detail=_detail(status)
            )
    else:
        seen: list[tuple[str, int]] = []

        def show(status: JobStatus) -> None:
            now = (status.state, int(10 * status.progress))
            if now not in seen:
                seen.append(now)
                typer.echo(f"{status.state}: {_detail(status)}", err=True)

        yield show


def _detail(status: JobStatus) -> str:
    text = f"{status.prompts_done} of {status.prompts_total} prompts, {status.progress:.0%}"
    left = status.seconds_left
    return text if left is None or status.ended else f"{text}, about {left:.0f} s left"


def _plain_lines(unit: str) -> Callable[[Progress], None]:
    tenths = -1

    def show(progress: Progress) -> None:
        nonlocal tenths
        now = 10 * progress.done // max(progress.total, 1)
        if now > tenths:
            tenths = now
            if unit == "bytes":
                text = f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"
            else:
                text = f"{progress.done} of {progress.total} {unit}"
            typer.echo(text, err=True)

    return show


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> str:
    return number(math.nan if value is None else value)
