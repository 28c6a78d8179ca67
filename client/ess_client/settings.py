"""Which server, and how to reach it: arguments, then the environment, then a file.

    argument         flag               environment          client.toml
    address          --server           ESS_SERVER           server
    tls              --tls, --no-tls    ESS_TLS              tls
    ca               --ca               ESS_CA               ca
    certificate      --cert             ESS_CERT             certificate
    key              --key              ESS_KEY              key
    token                               ESS_TOKEN            token
    token_file       --token-file       ESS_TOKEN_FILE       token_file
    plaintext_token  --plaintext-token  ESS_PLAINTEXT_TOKEN  plaintext_token
    timeout          --timeout          ESS_TIMEOUT          timeout
    retries          --retries          ESS_RETRIES          retries
    client_id        --client-id        ESS_CLIENT_ID        client_id

The file is $XDG_CONFIG_HOME/ess/client.toml, by default ~/.config/ess/client.toml. Its tables
[servers.NAME] hold the same keys for single servers and go before the keys at the top; NAME may be
given as the address. A token of the file goes to the server it stands beside and to no other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ess_client import _secrets
from ess_client._steps import Deadline
from ess_client.errors import InvalidArgument

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_RETRIES = 3
MOST_RETRIES = 100
WORK_SECONDS = 600.0  # Profiles, loading and unloading models, submitting jobs.
QUERY_SECONDS = 30.0  # Everything else.


@dataclass(frozen=True)
class Settings:
    """What a client needs to know. Secrets are not in its repr."""

    address: str = DEFAULT_ADDRESS
    timeout: float | None = None
    retries: int = DEFAULT_RETRIES
    client_id: str | None = None
    tls: bool = False
    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def deadline(self, timeout: float | None, default: float) -> Deadline:
        """Begins now: the call's own timeout, else the client's, else the default of its kind."""
        return Deadline(next(s for s in (timeout, self.timeout, default) if s is not None))


class Value(NamedTuple):
    """What somebody wrote for a key."""

    written: Any
    origin: str  # Names it in errors: "token", "ESS_TOKEN", "~/.config/...: token".
    folder: Path = Path()  # Where relative paths begin.


Values = dict[str, Value]


def resolve(**arguments: Any) -> Settings:
    """Settings from arguments (None: not given), the environment and the file.

    Raises InvalidArgument, which names the variable or the file and its key, or the OSError of a
    file that cannot be read. Warns of a file with a secret that others may read.
    """
    given = {
        "server" if name == "address" else name: Value(value, name)
        for name, value in arguments.items()
        if value is not None
    }
    environment = {
        key: Value(os.environ[name], name)
        for key, (name, _) in _KEYS.items()
        if os.environ.get(name)  # An empty one counts as unset.
    }
    path = config_path()
    top, sections = _read(path)
    # The server that the keys at the top stand beside.
    home = top.get("server", Value(DEFAULT_ADDRESS, "default"))
    wanted = given.get("server") or environment.get("server") or home
    section = _section(sections, str(wanted.written))
    if str(wanted.written) != str(home.written):
        top = {key: value for key, value in top.items() if key not in _TOKENS}
    values = _merged([given, environment, section, top])
    values["server"] = section.get("server", wanted)  # A name has become an address.
    return _settings(
        {key: _KEYS[key][1](value) for key, value in values.items()},
        {key: value.origin for key, value in values.items()},
    )


def config_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return Path(home or Path.home() / ".config") / "ess" / "client.toml"


def server_names() -> list[str]:
    """Those of client.toml."""
    return sorted(_read(config_path())[1])


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT, or a socket file, is on this machine, by its spelling alone."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        address = address.removeprefix(scheme)
    host = address.lstrip("/").rsplit(":", 1)[0].strip("[]")
    numbers = host.split(".")
    is_v4 = len(numbers) == 4 and all(part.isdigit() for part in numbers)
    return host in ("localhost", "::1") or (is_v4 and numbers[0] == "127")


def _merged(levels: list[Values]) -> Values:
    """The first level that has a key wins. A token stands above the token files of lower levels and
    the other way round, and tls=False above what TLS needs."""
    merged: Values = {}
    covered: set[str] = set()
    for level in levels:
        tokens = sorted((_TOKENS & set(level)) - covered)
        if len(tokens) == 2:
            origins = " and ".join(level[name].origin for name in tokens)
            raise InvalidArgument(f"{origins} are both given; give one")
        merged |= {key: value for key, value in level.items() if key not in {*merged, *covered}}
        covered |= _TOKENS if tokens else set()
        if "tls" in level and not _flag(level["tls"]):
            covered |= {"ca", "certificate", "key"}
    return merged


def _settings(values: dict[str, Any], origins: Mapping[str, str]) -> Settings:
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if name in values and other not in values:
            raise InvalidArgument(f"{origins[name]} needs {other} beside it")
    secured = [name for name in ("ca", "certificate") if name in values]
    tls = values.get("tls", bool(secured))
    if secured and not tls:
        raise InvalidArgument(f"{origins['tls']} is off, and {origins[secured[0]]} needs it")
    address, token = values["server"], values.get("token", values.get("token_file"))
    if token and not (tls or values.get("plaintext_token") or is_loopback(address)):
        raise InvalidArgument(
            f"the token would travel to {address} in the clear: the connection has no TLS and "
            "leaves this machine. Give tls or ca, or say plaintext_token (--plaintext-token)"
        )
    return Settings(
        address=address,
        tls=tls,
        token=token,
        **{
            name: values[name]
            for name in ("timeout", "retries", "client_id", "ca", "certificate", "key")
            if name in values
        },
    )


def _read(path: Path) -> tuple[Values, dict[str, Values]]:
    """The keys at the top of the file, and those of each server's table. No file: none."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not TOML: {error}") from None
    tables = document.pop("servers", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise InvalidArgument(f"{path}: servers holds tables, [servers.NAME]")
    for name, table in tables.items():
        if "server" not in table:
            raise InvalidArgument(f"{path}: servers.{name} has no key server, its address")
    if any("token" in table for table in (document, *tables.values())):
        _secrets.warn_if_readable(path)
    return _values(path, "", document), {
        name: _values(path, f"servers.{name}.", table) for name, table in tables.items()
    }


def _values(path: Path, prefix: str, table: Mapping[str, Any]) -> Values:
    for key in table:
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise InvalidArgument(f"{path}: there is no key {prefix}{key}; there are {known}")
    return {k: Value(written, f"{path}: {prefix}{k}", path.parent) for k, written in table.items()}


def _section(sections: Mapping[str, Values], wanted: str) -> Values:
    """The table of a server, by its name or its address; empty where there is none."""
    if wanted in sections:
        return sections[wanted]
    return next((s for s in sections.values() if s["server"].written == wanted), {})


def _text(value: Value) -> str:
    text = value.written
    if not isinstance(text, str) or not text or any(c.isspace() for c in text):
        raise InvalidArgument(f"{value.origin} is {text!r}; it is text without spaces")
    return text


def _flag(value: Value) -> bool:
    text = str(value.written).lower()
    if text not in (*_YES, *_NO):
        raise InvalidArgument(f"{value.origin} is {value.written!r}; it is true or false")
    return text in _YES


def _seconds(value: Value) -> float:
    try:
        seconds = float("nan" if isinstance(value.written, bool) else value.written)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not seconds > 0:
        raise InvalidArgument(f"{value.origin} is {value.written!r}; it must be above 0 (seconds)")
    return seconds


def _count(value: Value) -> int:
    text = str(value.written)
    if not text.isdecimal() or int(text) > MOST_RETRIES:
        raise InvalidArgument(f"{value.origin} is {text!r}; it lies between 0 and {MOST_RETRIES}")
    return int(text)


def _token(value: Value) -> str:
    return _secrets.checked_token(value.written, value.origin)


def _file(read: Callable[[Path, str], Any]) -> Callable[[Value], Any]:
    def parse(value: Value) -> Any:
        if not isinstance(value.written, (str, os.PathLike)) or not str(value.written):
            raise InvalidArgument(f"{value.origin} is {value.written!r}; it is the path of a file")
        return read(value.folder / Path(value.written).expanduser(), value.origin)

    return parse


_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")
_TOKENS = {"token", "token_file"}
# By key of the file: its variable, and what makes a value of what was written.
_KEYS: dict[str, tuple[str, Callable[[Value], Any]]] = {
    "server": ("ESS_SERVER", _text),
    "tls": ("ESS_TLS", _flag),
    "ca": ("ESS_CA", _file(_secrets.read_certificates)),
    "certificate": ("ESS_CERT", _file(_secrets.read_certificates)),
    "key": ("ESS_KEY", _file(_secrets.read_key)),
    "token": ("ESS_TOKEN", _token),
    "token_file": ("ESS_TOKEN_FILE", _file(_secrets.read_token_file)),
    "plaintext_token": ("ESS_PLAINTEXT_TOKEN", _flag),
    "timeout": ("ESS_TIMEOUT", _seconds),
    "retries": ("ESS_RETRIES", _count),
    "client_id": ("ESS_CLIENT_ID", _text),
}
