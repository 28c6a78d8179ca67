"""The command `ess`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

import ess_client
from ess_client.cli import jobs, models, operators
from ess_client.cli.connection import connecting
from ess_client.cli.errors import Commands, exit_code_help
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
    Priority,
    Reduce,
)
from ess_client.cli.output import (
    new_table,
    print_json,
    print_summary,
    print_table,
    progress_display,
    summary,
)
from ess_client.cli.prompts import gather_inputs
from ess_client.errors import InvalidArgument

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Effective state-size of sequence models, measured by an ESS Profiler server.",
    epilog=exit_code_help(),
)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.command("operators")(operators.operators)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ess {ess_client.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


@app.command()
@connecting
def info(client: ess_client.Client, as_json: Json = False) -> None:
    """Version, device and limits of the server."""
    found = dataclasses.asdict(client.server_info())
    if as_json:
        print_json(found)
        return
    table = new_table(("server", False), (client.address, False))
    for name, value in found.items():
        text = ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
        table.add_row(name.replace("_", " "), text)
    print_table(table)


@app.command()
@connecting
def profile(
    client: ess_client.Client,
    model: Model,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt; repeatable.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE.jsonl",
            help='Lines of {"text": "..."} or {"token_ids": [...]}, optional "id"; - is stdin.',
        ),
    ] = None,
    token_ids: Annotated[
        list[str] | None,
        typer.Option("--token-ids", metavar="1,2,3", help="A prompt; repeatable."),
    ] = None,
    gaussian: Annotated[
        str | None,
        typer.Option(
            metavar="count=8,length=512,seed=0",
            help="Normal embeddings instead of prompts; seed 0 unless said.",
        ),
    ] = None,
    measure: Measures = None,
    layers: Layers = None,
    heads: Heads = None,
    positions: Positions = None,
    horizon: Horizon = None,
    certify: Certify = False,
    reduce: Reduce = None,
    no_special_tokens: NoSpecialTokens = False,
    priority: Priority = "normal",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would cost, and run nothing.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT.safetensors", help="Save here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Runs prompts through a model and measures its operators at every position."""
    arguments: dict[str, Any] = {
        **gather_inputs(prompt or [], prompts, token_ids or [], gaussian),
        "measures": measure or None,
        "layers": layers,
        "heads": heads,
        "positions": positions,
        "horizon": horizon,
        "certify": certify,
        "reduce": reduce,
        "add_special_tokens": False if no_special_tokens else None,
    }
    if dry_run:
        estimate = client.estimate(model, **arguments)
        if as_json:
            print_json(dataclasses.asdict(estimate))
        else:
            typer.echo(estimate)
        return
    with progress_display(as_json, "operators x prompts", "forward pass") as progress:
        result = client.profile(model, progress=progress, priority=priority, **arguments)
    if output is not None:
        result.save(output)
    if as_json:
        print_json(
            {
                "model": result.model["name"],
                "output": None if output is None else str(output),
                "prompts": summary(result),
                "stage_seconds": dict(result.stages),
            }
        )
        return
    print_summary(result)
    if output is not None:
        typer.echo(f"saved {output}")


@app.command()
def report(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="OUT.safetensors...", help="Saved profiles; several are compared."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="report.html")],
    title: Annotated[str | None, typer.Option(help="Default: the models' names.")] = None,
) -> None:
    """Draws a saved profile, or compares several: one HTML file that needs no network."""
    from ess_client.report import write_comparison, write_report

    profiles = [ess_client.load_profile(file) for file in files]
    if len(profiles) == 1:
        write_report(profiles[0], output, title)
    else:
        write_comparison(profiles, output, title)
    typer.echo(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="A saved profile.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="X.csv")],
) -> None:
    """Writes a saved profile as a tidy CSV table, one row per value."""
    from ess_client.table import write_csv

    if output.suffix != ".csv":
        raise InvalidArgument(f"{output.name}: the output is a .csv file")
    write_csv(ess_client.load_profile(file), output)
    typer.echo(f"wrote {output}")
