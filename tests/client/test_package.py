"""The package as it is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import ess_client


def test_the_generated_code_makes_no_top_level_module() -> None:
    assert importlib.util.find_spec("ess_client._proto.ess.v1.profiler_pb2") is not None
    assert importlib.util.find_spec("ess") is None


def test_the_package_is_typed_and_every_public_name_exists() -> None:
    assert (Path(ess_client.__file__).parent / "py.typed").exists()
    assert [name for name in ess_client.__all__ if not hasattr(ess_client, name)] == []


def test_the_generated_code_decides_the_lower_bounds() -> None:
    requirements = importlib.metadata.requires("ess-client") or []

    assert any(r.startswith("grpcio>=1.") for r in requirements)
    assert any(r.startswith("protobuf>=") for r in requirements)
