"""ListModels, GetModel, LoadModel, UnloadModel, GetServerInfo."""

import psutil
import pytest

from ess_client import AlreadyExists, Client, NotFound

from . import tiny_models
from .server_process import ServerProcess


@pytest.fixture
def own_server(model_root):
    with ServerProcess(f"--model_root={model_root}") as process:
        yield process


@pytest.fixture
def own_client(own_server):
    with Client(own_server.address) as connected:
        yield connected


def test_models_are_listed_cold_with_their_architecture(own_client):
    models = {model.name: model for model in own_client.models()}
    assert set(models) == {"no-tokenizer", "tiny-gpt2", "tiny-llama"}
    assert models["tiny-gpt2"].architecture == "gpt2"
    assert models["tiny-gpt2"].state == "cold"


def test_a_loaded_model_describes_itself(own_client):
    model = own_client.load_model("tiny-llama")
    assert model.state == "ready"
    assert (model.device, model.dtype) == ("cpu", "float32")
    assert model.vocabulary_size == tiny_models.VOCABULARY
    assert model.max_positions == 512
    assert model.hidden_size == 32
    assert model.weight_bytes == 4 * model.parameters > 0
    assert [layer.name for layer in model.layers] == ["000", "001", "002"]
    assert model.layers[0].operator_class == "DenseOperator"
    assert model.layers[0].head_count == 4
    assert set(model.layers[0].channels) == {8}
    assert len(model.weight_digest) == 64
    assert own_client.model("tiny-llama") == model


def test_loading_a_loaded_model_changes_nothing(own_client, own_server):
    first = own_client.load_model("tiny-llama")
    assert own_client.load_model("tiny-llama") == first
    assert own_server.metric("ess_model_loads_total", model="tiny-llama", result="OK") == 1


def test_other_options_for_a_loaded_model_are_refused(own_client):
    own_client.load_model("tiny-llama")
    with pytest.raises(AlreadyExists, match="other options"):
        own_client.load_model("tiny-llama", dtype="as_stored")


def test_a_model_is_served_under_an_alias(own_client):
    own_client.load_model("tiny-llama", alias="second", dtype="as_stored")
    assert own_client.profile("second", token_ids=[[1, 2]]).ess.sizes["position"] == 2


def test_an_unloaded_model_loads_again_with_its_next_profile(own_client):
    before = own_client.profile("tiny-gpt2", token_ids=[[1, 2, 3]]).ess.values
    released = own_client.unload_model("tiny-gpt2")
    assert released > 0
    assert own_client.model("tiny-gpt2").state == "cold"
    assert own_client.unload_model("tiny-gpt2") == 0
    after = own_client.profile("tiny-gpt2", token_ids=[[1, 2, 3]]).ess.values
    assert (before == after).all()


def test_unloading_returns_the_memory(tmp_path):
    tiny_models.make_llama(tmp_path / "wide", hidden_size=1024, intermediate_size=4096)
    with ServerProcess(f"--model_root={tmp_path}") as server, Client(server.address) as client:
        process = psutil.Process(server.process.pid)
        client.profile("wide", token_ids=[[1, 2]])
        released = client.unload_model("wide")
        assert released > 100e6
        loaded = []
        for _ in range(3):
            client.load_model("wide")
            loaded.append(process.memory_info().rss)
            client.unload_model("wide")
        unloaded = process.memory_info().rss
        assert loaded[-1] - unloaded > 0.9 * released
        assert loaded[-1] - loaded[0] < 0.1 * released


def test_unknown_models_are_not_found(own_client):
    for call in (own_client.model, own_client.load_model, own_client.unload_model):
        with pytest.raises(NotFound, match="tiny-llama"):
            call("nothing")


def test_the_server_describes_itself(own_client):
    info = own_client.server_info()
    assert info.version == "0.1.0"
    assert info.device == "cpu"
    assert {"llama", "gpt2"} <= set(info.architectures)
    assert info.default_measures == ("tolerance:0.001", "entropy")
    assert info.max_result_bytes == 16 << 30
    assert info.uptime_seconds > 0


def test_loading_without_options_keeps_those_of_the_configuration(tmp_path, model_root):
    config = tmp_path / "server.textproto"
    config.write_text(
        f"models {{ name: 'mine' path: '{model_root / 'tiny-llama'}' options {{ pinned: true }} }}"
    )
    with ServerProcess(f"--config={config}") as server, Client(server.address) as client:
        client.profile("mine", token_ids=[[1]])
        assert client.load_model("mine").state == "ready"
