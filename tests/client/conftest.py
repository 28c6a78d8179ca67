"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from replay_server import ReplayServer
from synthetic import make_profile

from ess_client import Client, Profile


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    """A gRPC server on a free port that answers with the messages a test gives it."""
    with ReplayServer() as running:
        yield running


@pytest.fixture
def client(server: ReplayServer) -> Iterator[Client]:
    with Client(server.address, timeout=10) as connected:
        yield connected


@pytest.fixture
def ragged() -> Profile:
    """Prompts of 5, 1 and 9 tokens; layers of 3, 2 and 3 heads with unequal channels."""
    return make_profile(lengths=(5, 1, 9), heads=((0, 1, 2), (0, 1), (0, 1, 2)), seed=3)


@pytest.fixture
def options(server: ReplayServer) -> dict[str, Any]:
    """Environment of a command that talks to the replay server."""
    return {"ESS_SERVER": server.address, "COLUMNS": "200", "NO_COLOR": "1"}
