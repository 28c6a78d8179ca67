"""One server with small limits, so that whatever a mutated request asks for is cheap."""

import pytest

from tests.end_to_end.server_process import ServerProcess

from .small_server import make_models, write_config


@pytest.fixture(scope="session")
def model_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    make_models(root)
    return root


@pytest.fixture(scope="session")
def server_config(tmp_path_factory, model_root):
    return write_config(tmp_path_factory.mktemp("config"), model_root)


@pytest.fixture(scope="session")
def server(server_config, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    with ServerProcess(f"--config={server_config}", f"--state_dir={state}") as process:
        yield process
