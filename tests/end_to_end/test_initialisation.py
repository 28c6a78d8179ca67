"""Models without a checkpoint, and prompts without text."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ess_client import (
    AlreadyExists,
    Client,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    load_profile,
)

from . import tiny_models
from .server_process import ServerProcess

TOLERANCE = "tolerance:0.001"
LLAMA = {
    "model_type": "llama",
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
MAMBA2 = {
    "model_type": "mamba2",
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 32,
    "state_size": 16,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 16,
    "n_groups": 1,
}


def make_config(folder, fields):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    tiny_models.save_tokenizer(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    make_config(folder / "llama", LLAMA)
    make_config(folder / "mamba2", MAMBA2)
    make_config(folder / "bert", {"model_type": "bert"})
    tiny_models.make_llama(folder / "trained")
    return folder


@pytest.fixture(scope="module")
def server(root):
    with ServerProcess(f"--model_root={root}") as process:
        yield process


@pytest.fixture
def client(server):
    with Client(server.address, timeout=120) as connected:
        yield connected


@pytest.mark.parametrize("name", ["llama", "mamba2"])
def test_a_config_alone_is_served_with_the_seeds_weights(client, name):
    seeds = {"first": 1, "again": 1, "other": 2}
    for alias, seed in seeds.items():
        model = client.load_model(name, random_init=seed, alias=f"{name}-{alias}")
        assert (model.state, model.random_init) == ("ready", seed)
        assert (model.architecture, model.dtype) == (name, "float32")
        assert model.has_tokenizer
    ess = {
        alias: client.profile(
            f"{name}-{alias}", "the quick brown fox jumps", measures="entropy"
        ).ess.values
        for alias in seeds
    }
    assert np.isfinite(ess["first"]).all()
    np.testing.assert_array_equal(ess["first"], ess["again"])
    assert (ess["first"] != ess["other"]).any()
    digests = {alias: client.model(f"{name}-{alias}").weight_digest for alias in seeds}
    assert digests["first"] == digests["again"] != digests["other"]
    listed = {model.name: model.random_init for model in client.models()}
    assert (listed[f"{name}-first"], listed[f"{name}-other"], listed[name]) == (1, 2, None)


def test_random_weights_stand_beside_a_checkpoint_and_in_place_of_it(client):
    trained = client.profile("trained", token_ids=[[1, 2, 3, 4]], measures="entropy").ess.values
    client.load_model("trained", random_init=0, alias="untrained")
    untrained = client.profile("untrained", token_ids=[[1, 2, 3, 4]], measures="entropy")
    assert untrained.model["random_init"] == "0"
    assert (trained != untrained.ess.values).any()
    with pytest.raises(AlreadyExists, match="other options"):
        client.load_model("trained", random_init=0)
    with pytest.raises(AlreadyExists, match="other options"):
        client.load_model("untrained", random_init=1)
    client.unload_model("untrained")
    again = client.profile("untrained", token_ids=[[1, 2, 3, 4]], measures="entropy")
    np.testing.assert_array_equal(again.ess.values, untrained.ess.values)


def test_what_cannot_be_initialised_says_why(client):
    with pytest.raises(DataLoss, match="random_init"):
        client.load_model("llama")
    with pytest.raises(FailedPrecondition, match="bert"):
        client.load_model("bert", random_init=1)
    with pytest.raises(InvalidArgument, match="options.dtype"):
        client.load_model("llama", random_init=1, dtype="as_stored")


def test_a_model_that_does_not_fit_into_memory_is_refused(client, root):
    make_config(root / "huge", {**LLAMA, "vocab_size": 1 << 24, "hidden_size": 1 << 14})
    try:
        with pytest.raises(ResourceExhausted, match=r"needs up to \d+ bytes .*memory_budget"):
            client.load_model("huge", random_init=1)
        assert client.load_model("llama", random_init=1, alias="small").state == "ready"
    finally:
        shutil.rmtree(root / "huge")


def test_the_configuration_may_ask_for_random_weights(tmp_path, root):
    config = tmp_path / "server.textproto"
    options = "options { random_init { seed: 4 } }"
    config.write_text(f"models {{ name: 'mine' path: '{root / 'llama'}' {options} }}")
    with (
        ServerProcess(f"--config={config}", "--preload=mine") as own,
        Client(own.address) as client,
    ):
        assert (client.model("mine").state, client.model("mine").random_init) == ("ready", 4)
        assert client.profile("mine", token_ids=[[1, 2]]).model["random_init"] == "4"


def test_gaussian_prompts_are_the_same_in_any_batch(client):
    client.load_model("llama", random_init=3, alias="random")

    def profile(**gaussian):
        return client.profile("random", gaussian=gaussian, measures=["entropy", TOLERANCE])

    many, few = profile(count=3, length=20, seed=7), profile(count=2, length=20, seed=7)
    other = profile(count=2, length=20, seed=8)
    assert many.prompt_ids == ["0", "1", "2"]
    assert [prompt.length for prompt in many.prompts] == [20, 20, 20]
    assert many.tokens["0"] == ()
    assert np.isfinite(many.ess.values).all()
    np.testing.assert_array_equal(many.ess.values[:, :, :2], few.ess.values)
    assert (few.ess.values != other.ess.values).any()
    assert (many.ess.values[:, :, 0] != many.ess.values[:, :, 1]).any()


def test_gaussian_prompts_keep_to_the_limits(client):
    client.load_model("llama", random_init=3, alias="random")
    with pytest.raises(InvalidArgument, match="max_positions"):
        client.profile("random", gaussian={"count": 1, "length": 65})
    with pytest.raises(InvalidArgument, match="max_prompts"):
        client.profile("random", gaussian={"count": 100000, "length": 2})
    estimate = client.estimate("random", gaussian={"count": 2, "length": 30})
    assert estimate.tokens == 60


def test_the_command_line_profiles_an_untrained_model(server, tmp_path):
    def ess(*arguments):
        command = [str(Path(sys.executable).with_name("ess")), *map(str, arguments)]
        done = subprocess.run(
            [*command, "--server", server.address], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    loaded = ess("models", "load", "mamba2", "--random-init", 9, "--as", "cli")
    assert "seed 9" in loaded
    assert "seed 9" in ess("models", "list")
    out = tmp_path / "out.safetensors"
    gaussian = "count=2,length=24,seed=1"
    ess("profile", "--model", "cli", "--gaussian", gaussian, "-o", out)
    saved = load_profile(out)
    assert saved.model["random_init"] == "9"
    assert saved.options["gaussian"] == {"count": 2, "length": 24, "seed": 1}
    assert saved.ess.sizes["position"] == 24
