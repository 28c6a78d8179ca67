"""The options of every command that calls a server, and the client that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from ess_client.client import Client
from ess_client.settings import server_names

P = ParamSpec("P")


def connecting(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """A command that is given a client: it has the options of `_options` beside its own."""

    @wraps(command)
    def run(**values: Any) -> None:
        own = {name: value for name, value in values.items() if name not in shared}
        with open_client(values) as client:
            command(client, **own)  # type: ignore[call-arg]

    described: Any = run
    shared = inspect.signature(_options).parameters
    hints = get_type_hints(command, include_extras=True)
    hints |= get_type_hints(_options, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]  # Without the client.
    parameters = [
        parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY)
        for parameter in (*own, *shared.values())
    ]
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {p.name: p.annotation for p in parameters}
    del described.__wrapped__  # Typer would look at the command's own parameters.
    return run


def open_client(options: Mapping[str, Any], **instead: Any) -> Client:
    """A client from the values of `_options`; what is None comes from elsewhere (settings)."""
    names = inspect.signature(_options).parameters
    values = {name: options.get(name) for name in names} | instead
    values["address"] = values.pop("server")
    values["certificate"] = values.pop("cert")
    return Client(**values)


def _complete_server(incomplete: str) -> list[str]:
    try:
        return [name for name in server_names() if name.startswith(incomplete)]
    except Exception:  # The command itself says what is wrong.
        return []


def _option(*names: str, **details: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Connection", show_default=False, **details)


def _options(
    server: Annotated[
        str | None,
        _option(
            "--server",
            metavar="HOST:PORT",
            help="The server, or its name in client.toml. ESS_SERVER; default 127.0.0.1:8001.",
            autocompletion=_complete_server,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        _option(
            "--timeout",
            metavar="SECONDS",
            help="Of each call. ESS_TIMEOUT; default 600 for profiles, loading, unloading and "
            "submitting, none for waiting for a job, 30 for the rest.",
        ),
    ] = None,
    retries: Annotated[
        int | None,
        _option(
            "--retries",
            metavar="N",
            help="Further tries where that is safe. ESS_RETRIES; default 3.",
        ),
    ] = None,
    client_id: Annotated[
        str | None,
        _option(
            "--client-id", metavar="ID", help="Whom the server takes turns with. ESS_CLIENT_ID."
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        _option("--tls/--no-tls", help="Encrypt; --ca and --cert imply it. ESS_TLS."),
    ] = None,
    ca: Annotated[
        Path | None,
        _option(
            "--ca",
            metavar="FILE",
            help="Certificates (PEM) to check the server by. ESS_CA; default the public ones.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        _option("--cert", metavar="FILE", help="Certificate (PEM) of this client. ESS_CERT."),
    ] = None,
    key: Annotated[
        Path | None, _option("--key", metavar="FILE", help="Key (PEM) of --cert. ESS_KEY.")
    ] = None,
    token_file: Annotated[
        Path | None,
        _option(
            "--token-file", metavar="FILE", help="Holds the token. ESS_TOKEN_FILE, or ESS_TOKEN."
        ),
    ] = None,
    plaintext_token: Annotated[
        bool | None,
        _option(
            "--plaintext-token/--no-plaintext-token",
            help="Send the token to another machine even without TLS. ESS_PLAINTEXT_TOKEN.",
        ),
    ] = None,
) -> None:
    """The options themselves."""
