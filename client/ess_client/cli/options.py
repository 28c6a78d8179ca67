"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ess_client.cli.completion import model_names

Model = Annotated[
    str, typer.Option("--model", help="A model of the server.", autocompletion=model_names)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        help="tolerance:1e-3, relative:1e-3, head_relative:1e-3, entropy, spectral_norm, "
        "frobenius_norm, singular_values:K, causal (recurrences); repeatable. "
        "Default: the server's.",
    ),
]
Layers = Annotated[str | None, typer.Option(help="Layer indices or operator names, as in 0,4-7.")]
Heads = Annotated[str | None, typer.Option(help="Heads, as in 0-8:2.")]
NoSpecialTokens = Annotated[
    bool, typer.Option("--no-special-tokens", help="Add no BOS or the like to texts.")
]
Positions = Annotated[str | None, typer.Option(help="Positions, as in 0-511:8.")]
Horizon = Annotated[
    int | None, typer.Option(min=1, help="Cut each block to this many future rows.")
]
Certify = Annotated[
    bool, typer.Option("--certify", help="Say which counts are certain; recompute the others.")
]
Reduce = Annotated[
    Literal["heads", "positions"] | None,
    typer.Option(
        help="The server sends means over heads or positions only.",
    ),
]
Priority = Annotated[
    Literal["normal", "low"], typer.Option(help="low waits for the normal requests of all callers.")
]
