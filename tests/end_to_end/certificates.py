"""Certificates for tests, made by `openssl` when they run."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is `certificate`."""

    def __init__(self, folder, name="test authority"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self.key = folder / "ca.pem", folder / "ca.key"
        self._make(name, self.certificate, self.key, "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name, *names):
        """A certificate for this common name, and subject alternative names ("DNS:a")."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        extra = ["-addext", f"subjectAltName={','.join(names)}"] if names else []
        signed = ["-CA", str(self.certificate), "-CAkey", str(self.key)]
        self._make(name, pair.certificate, pair.key, *extra, *signed)
        return pair

    def issue_server(self, name="server"):
        return self.issue(name, "IP:127.0.0.1", "DNS:localhost")

    @staticmethod
    def _make(name, certificate, key, *extra):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subject = ["-days", "2", "-subj", f"/CN={name}"]
        openssl("req", "-x509", *curve, *files, *subject, *extra)


def tls_flags(pair, authority=None):
    """Flags of a server with this certificate, which asks its clients for one of `authority`."""
    flags = [f"--tls_certificate={pair.certificate}", f"--tls_key={pair.key}"]
    return flags + ([f"--tls_client_ca={authority.certificate}"] if authority else [])


def secure_channel(address, authority, pair=None):
    """A channel of a client who trusts `authority`, and shows the certificate of `pair`."""
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        pair.key.read_bytes() if pair else None,
        pair.certificate.read_bytes() if pair else None,
    )
    # Channels of one process share their connections otherwise.
    return grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])
