"""What Client and AsyncClient share: settings, and the channel in the process that may use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import grpc

from ess_client._channel import call_metadata, open_channel
from ess_client._proto.ess.v1 import profiler_pb2_grpc
from ess_client._steps import Call
from ess_client.errors import FailedPrecondition, error_from_rpc
from ess_client.settings import Settings, resolve


class Connection:
    """A connection to one server. Close it, or use it in a `with`.

    address: HOST:PORT, or the name of a server in client.toml. tls, ca, certificate, key: see
    docs/client.md; ca or certificate turn TLS on. token: sent as `authorization: Bearer TOKEN`, to
    another machine over TLS only unless plaintext_token says otherwise. What is None is taken from
    the environment, then from client.toml (ess_client.settings).

    timeout: seconds of every call that has none of its own. Where that is None too: 600 s for
    profiles, loading, unloading and submitting, 30 s for the rest, and waiting for a job takes as
    long as the job does. Out of time, a call raises DeadlineExceeded and the server stops the work.
    retries: how often a call is tried again where that is safe (docs/client.md, Retries).
    client_id: whom the server takes turns with, where several share an address, such as the jobs of
    a node. Default: the address.

    Make it after a fork, not before: a call from a child process is refused. Proxies of the
    environment are not used.
    """

    _grpc: ClassVar[Any]  # grpc or grpc.aio.

    def __init__(
        self,
        address: str | None = None,
        timeout: float | None = None,
        *,
        client_id: str | None = None,
        retries: int | None = None,
        tls: bool | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        plaintext_token: bool | None = None,
    ) -> None:
        self._settings = resolve(
            address=address,
            timeout=timeout,
            client_id=client_id,
            retries=retries,
            tls=tls,
            ca=ca,
            certificate=certificate,
            key=key,
            token=token,
            token_file=token_file,
            plaintext_token=plaintext_token,
        )
        self._metadata = call_metadata(self._settings)
        self._process = os.getpid()
        self._channel: Any = None
        self._stub: Any = None
        if self._grpc is grpc:  # grpc.aio opens in the event loop.
            self._open()

    def __repr__(self) -> str:
        secure = ", tls=True" if self._settings.tls else ""
        return f"{type(self).__name__}({self._settings.address!r}{secure})"

    @property
    def address(self) -> str:
        return self._settings.address

    @property
    def _bound(self) -> tuple[Settings]:
        """The first arguments of the scripts that are methods here (_binding)."""
        return (self._settings,)

    def _method(self, name: str) -> Any:
        """An RPC of the server."""
        if self._process != os.getpid():
            raise FailedPrecondition(
                f"this client was made in process {self._process} and is used in its child "
                f"{os.getpid()}: make one there"
            )
        if self._channel is None:
            self._open()
        return getattr(self._stub, name)

    def _open(self) -> None:
        self._channel = open_channel(self._settings, self._grpc)
        self._stub = profiler_pb2_grpc.EssProfilerStub(self._channel)  # type: ignore[no-untyped-call]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address, self._hint(error)) from None

    def _hint(self, error: Any) -> str:
        """What may be missing, where gRPC's own words do not say it."""
        code = error.code() if hasattr(error, "code") else None
        if code is grpc.StatusCode.UNAUTHENTICATED and self._settings.token is None:
            return "; no token was sent: token_file, --token-file, ESS_TOKEN or client.toml"
        if code is grpc.StatusCode.UNAVAILABLE and not self._settings.tls:
            closed = "Socket closed" in str(error.details())
            return "; does it want TLS?" if closed else ""
        return ""


def request_of(call: Call) -> Any:
    return call.request() if callable(call.request) else call.request
