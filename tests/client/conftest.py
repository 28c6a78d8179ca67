"""Fixtures of the client's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_server import JobServer
from replay_server import ReplayServer
from synthetic import make_profile

from ess_client import Client, Profile


@pytest.fixture(autouse=True)
def configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Path:
    """An empty folder for client.toml, and none of the variables of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("ESS_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    (home / "ess").mkdir()
    return home / "ess" / "client.toml"


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    """A gRPC server on a free port that answers with the messages a test gives it."""
    with ReplayServer() as running:
        yield running


@pytest.fixture
def job_server() -> Iterator[JobServer]:
    """One that keeps jobs, which move on when a test says so."""
    with JobServer() as running:
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
