"""ess operators: operators of a .npz file, measured by the server."""

from __future__ import annotations

import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ess_client import operators as classes
from ess_client._operator_stream import OperatorsResult
from ess_client._text import number
from ess_client.cli.connection import connecting
from ess_client.cli.options import (
    Certify,
    Horizon,
    Json,
    Measures,
    Positions,
    Priority,
    Reduce,
)
from ess_client.cli.output import new_table, print_json, print_table, progress_display
from ess_client.client import Client
from ess_client.errors import DataLoss, InvalidArgument
from ess_client.storage import written_atomically


@connecting
def operators(
    client: Client,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.npz",
            help="A 0-d string `operator`, a class of ess_client, and one array per argument.",
        ),
    ],
    measure: Measures = None,
    positions: Positions = None,
    horizon: Horizon = None,
    certify: Certify = False,
    reduce: Reduce = None,
    priority: Priority = "normal",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT.npz", help="Save here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures operators that you bring, dense or in factors."""
    if output is not None and output.suffix != ".npz":
        raise InvalidArgument(f"{output.name}: the output is a .npz file")
    operator = read_operator(file)
    with progress_display(as_json, "values", "operators") as progress:
        result = client.profile_operators(
            operator,
            measures=measure or None,
            positions=positions,
            horizon=horizon,
            certify=certify,
            reduce=reduce,
            priority=priority,
            progress=progress,
        )
    if output is not None:
        _save(result, output)
    rows = _summary(result)
    if as_json:
        saved = None if output is None else str(output)
        print_json({"output": saved, "measures": rows, "seconds": result.seconds})
        return
    table = new_table(("measure", False), ("mean", True), ("largest", True), ("route", False))
    for row in rows:
        mean, largest = (np.nan if row[key] is None else row[key] for key in ("mean", "largest"))
        table.add_row(row["measure"], number(mean), number(largest), row["route"])
    print_table(table)
    for row in rows:
        if row["below_noise_floor"]:
            typer.echo(
                f"{row['measure']} lies below the noise floor of {row['below_noise_floor']} of "
                f"{result.noise_floor.size} operators"
            )
    if output is not None:
        typer.echo(f"saved {output}")


def read_operator(path: Path) -> classes.Operator:
    """The operator of a .npz file. Raises OSError, DataLoss, or InvalidArgument."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataLoss(f"{path.name} is no .npz file")
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataLoss(f"{path.name} is no .npz file of plain arrays: {error}") from error
    name = _text(arrays.pop("operator", np.array("")))
    operator = getattr(classes, name, None) if name in _NAMES else None
    if operator is None:
        raise InvalidArgument(
            f"{path.name}: operator is '{name}'; it is one of {', '.join(_NAMES)}"
        )
    known = [field.name for field in fields(operator)]
    unknown = sorted(set(arrays) - set(known))
    if unknown:
        raise InvalidArgument(
            f"{path.name}: {name} has no argument '{unknown[0]}'; it has {', '.join(known)}"
        )
    arguments: dict[str, Any] = dict(arrays)
    if "read" in arguments:
        arguments["read"] = _text(arguments["read"])
    try:
        made: classes.Operator = operator(**arguments)
    except TypeError as error:
        raise InvalidArgument(f"{path.name}: {name}: {error}") from None
    return made


def _text(array: np.ndarray[Any, Any]) -> str:
    """A 0-d array of characters or bytes."""
    return array.item().decode() if array.dtype.kind == "S" else str(array)


_NAMES = [operator.__name__ for operator in classes.Operator.__subclasses__()]


def _save(result: OperatorsResult, path: Path) -> None:
    arrays: dict[str, Any] = {
        "ess": result.ess.values,
        "measures": np.array(result.ess.coords["measure"].values, str),
        "positions": result.tss.coords["position"].values,
        "tss": result.tss.values,
        "noise_floor": result.noise_floor.values,
        "routes": np.array(list(result.route.values()), str),
    }
    if result.certain is not None:
        arrays["certain"] = result.certain.values
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _summary(result: OperatorsResult) -> list[dict[str, Any]]:
    """Per measure: mean and largest over all but position 0; None where there is nothing."""
    ess = result.ess
    if "position" in ess.dims:
        ess = ess.sel(position=ess.coords["position"] > 0)
    rows = []
    for index, (measure, route) in enumerate(result.route.items()):
        values = ess.values[index]
        known = values[~np.isnan(values)]
        rows.append(
            {
                "measure": measure,
                "mean": float(known.mean()) if known.size else None,
                "largest": float(known.max()) if known.size else None,
                "route": route,
                "below_noise_floor": result.below_noise_floor[measure],
            }
        )
    return rows
