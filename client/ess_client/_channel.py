"""A gRPC channel and the metadata of calls, from settings."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import grpc

from ess_client.settings import Settings

# grpc waits a second before it connects again, and answers calls with the old failure meanwhile;
# the pauses of _retry begin with less.
_FIRST_RECONNECT_MS = 100
_LONGEST_RECONNECT_MS = 5000


def open_channel(settings: Settings, kind: Any = grpc) -> Any:
    """kind: grpc, or grpc.aio. Connects when the first call is made."""
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        ("grpc.primary_user_agent", f"ess-client/{metadata.version('ess-client')}"),
    ]
    if not settings.tls:
        return kind.insecure_channel(settings.address, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=settings.ca,
        private_key=settings.key,
        certificate_chain=settings.certificate,
    )
    return kind.secure_channel(settings.address, credentials, options)


def call_metadata(settings: Settings) -> list[tuple[str, str]]:
    pairs = []
    if settings.client_id is not None:
        pairs.append(("ess-client-id", settings.client_id))
    if settings.token is not None:
        pairs.append(("authorization", f"Bearer {settings.token}"))
    return pairs
