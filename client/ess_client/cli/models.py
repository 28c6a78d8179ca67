"""ess models: list, load, unload."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.markup import escape

from ess_client import Client
from ess_client.cli.completion import model_names
from ess_client.cli.connection import connecting
from ess_client.cli.options import Json
from ess_client.cli.output import new_table, print_json, print_table
from ess_client.models import ModelInfo

app = typer.Typer(no_args_is_help=True, help="List, load and unload the server's models.")

Name = Annotated[str, typer.Argument(help="A model of the server.", autocompletion=model_names)]


@app.command("list")
@connecting
def list_models(client: Client, as_json: Json = False) -> None:
    """The models the server knows."""
    _print(client.models(), as_json)


@app.command()
@connecting
def load(
    client: Client,
    name: Name,
    random_init: Annotated[
        int | None,
        typer.Option(
            metavar="SEED", help="Weights as at the start of training, no checkpoint needed."
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (default) or as_stored.")] = None,
    alias: Annotated[
        str | None, typer.Option("--as", "--alias", help="Serve it under this name.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:0, ...")] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Never evict it.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Read a loaded model again and replace it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Loads a model and returns when it is resident."""
    model = client.load_model(
        name,
        random_init=random_init,
        dtype=dtype,
        alias=alias,
        device=device,
        pinned=pinned,
        reload=reload,
    )
    _print([model], as_json)


@app.command()
@connecting
def unload(client: Client, name: Name, as_json: Json = False) -> None:
    """Unloads a model, after the requests that use it."""
    released = client.unload_model(name)
    if as_json:
        print_json({"name": name, "released_bytes": released})
    else:
        typer.echo(f"unloaded {name}: {released / 2**20:.1f} MiB given back")


def _print(models: list[ModelInfo], as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(model) for model in models])
        return
    columns = [("model", False), ("state", False), ("architecture", False), ("device", False)]
    columns += [("dtype", False), ("parameters", True), ("weights", True), ("random", True)]
    columns += [("reason", False)]
    table = new_table(*columns)
    for model in models:
        table.add_row(
            escape(model.name),
            model.state,
            model.architecture,
            model.device,
            model.dtype,
            f"{model.parameters / 1e6:.1f} M" if model.parameters else "",
            f"{model.weight_bytes / 2**20:.1f} MiB" if model.weight_bytes else "",
            "" if model.random_init is None else f"seed {model.random_init}",
            escape(model.reason),
        )
    print_table(table)
