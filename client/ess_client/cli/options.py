"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ess_client.client import DEFAULT_ADDRESS

Server = Annotated[
    str,
    typer.Option("--server", envvar="ESS_SERVER", metavar="HOST:PORT", help="The server."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Of each call; default 600 for profiles, loading and unloading, 30 for the rest.",
    ),
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

DEFAULT_SERVER = DEFAULT_ADDRESS
