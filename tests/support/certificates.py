"""Certificates for one run of the tests, made with the command `openssl`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """PEM files: a certificate and its key, which only the owner may read."""

    certificate: Path
    key: Path


def make_authority(folder: Path, name: str = "authority") -> Pair:
    """A certificate that signs itself, valid for a day. Each call makes another one."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl(
        *("req", "-x509", "-days", "1", "-subj", f"/CN=ess test {name}", *_KEY),
        *("-keyout", pair.key, "-out", pair.certificate),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
    )
    return pair


def issue(authority: Pair, folder: Path, name: str, extension: str = NAMES) -> Pair:
    """A certificate signed by the authority, for localhost and 127.0.0.1 unless said otherwise."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    _openssl("req", "-subj", f"/CN={name}", *_KEY, "-keyout", pair.key, "-out", request)
    extensions.write_text(f"{extension}\n")
    _openssl(
        *("x509", "-req", "-days", "1", "-in", request, "-out", pair.certificate),
        *("-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial"),
        *("-extfile", extensions),
    )
    return pair


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)
