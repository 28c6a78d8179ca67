"""A server with small models for all tests; a test that breaks the server starts its own."""

import shutil

import pytest

from ess_client import Client

from . import tiny_models
from .server_process import ServerProcess


@pytest.fixture(scope="session")
def model_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_models.make_llama(root / "tiny-llama")
    tiny_models.make_gpt2(root / "tiny-gpt2")
    shutil.copytree(root / "tiny-llama", root / "no-tokenizer")
    (root / "no-tokenizer" / "tokenizer.json").unlink()
    return root


@pytest.fixture(scope="session")
def server(model_root):
    with ServerProcess(f"--model_root={model_root}") as process:
        yield process


@pytest.fixture
def client(server):
    with Client(server.address, timeout=120) as connected:
        yield connected
