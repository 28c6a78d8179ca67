"""Reading tokens, certificates and keys. Their contents never appear in an error."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path

from ess_client.errors import InvalidArgument

LONGEST_TOKEN = 4096  # Characters; with more, headers exceed what servers take.


class SecretWarning(UserWarning):
    """A file with a secret is readable by others."""


def read_token_file(path: Path, origin: str) -> str:
    """The token of a file, without the line end. origin: who names the file, for errors."""
    warn_if_readable(path)
    return checked_token(_read(path, origin).decode(errors="replace").strip(), f"{origin}: {path}")


def checked_token(token: object, origin: str) -> str:
    if not isinstance(token, str) or not token:
        raise InvalidArgument(f"{origin} holds no token")
    if len(token) > LONGEST_TOKEN:
        raise InvalidArgument(
            f"{origin} holds {len(token)} characters; a token has at most {LONGEST_TOKEN}"
        )
    if not all("!" <= character <= "~" for character in token):
        raise InvalidArgument(f"{origin} holds a space, a line break or no ASCII; a token has none")
    return token


def read_certificates(path: Path, origin: str) -> bytes:
    return _pem(path, origin, b"CERTIFICATE-----", "certificate")


def read_key(path: Path, origin: str) -> bytes:
    warn_if_readable(path)
    return _pem(path, origin, b"PRIVATE KEY-----", "private key")


def warn_if_readable(path: Path) -> None:
    """Warns when others than the owner may read a file with a secret."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # Reading it says why.
    if mode & 0o077:
        warnings.warn(
            f"{path} holds a secret and others may use it (mode {mode:04o}); chmod 600 it",
            SecretWarning,
            stacklevel=2,
        )


def _pem(path: Path, origin: str, marker: bytes, what: str) -> bytes:
    content = _read(path, origin)
    if marker not in content:
        raise InvalidArgument(f"{origin}: {path} holds no {what} in PEM format")
    return content


def _read(path: Path, origin: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        # The same kind of error, which also says who names the file.
        reason = f"{error.strerror} (named by {origin})"
        raise type(error)(error.errno, reason, str(path)) from None
