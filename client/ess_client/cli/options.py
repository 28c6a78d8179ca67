"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

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

DEFAULT_SERVER = DEFAULT_ADDRESS
