"""Each kind of bad input gets its code and a message that names field, value and limit; and the
model answers exactly as before."""

import json
import shutil

import grpc
import numpy as np
import pytest

from ess_client import Client, EssError
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc

from . import tiny_models
from .server_process import ServerProcess

GOOD = [[1, 2, 3, 4, 5, 6, 7, 8]]


def refused(call, code, *parts):
    """Expects the call to be refused with this code and these parts of the message."""
    with pytest.raises(EssError) as error:
        call()
    assert error.value.code.name == code, error.value
    for part in parts:
        assert part in str(error.value)


@pytest.fixture
def unharmed(client):
    """The model answers the same bits before and after the test."""
    before = client.profile("tiny-llama", token_ids=GOOD).ess.values
    yield
    after = client.profile("tiny-llama", token_ids=GOOD).ess.values
    np.testing.assert_array_equal(before, after)


CASES = {
    "unknown model": (
        {"model": "gpt-9", "token_ids": GOOD},
        "NOT_FOUND",
        ["'gpt-9'", "tiny-llama"],
    ),
    "token id too large": (
        {"token_ids": [[1, 300]]},
        "INVALID_ARGUMENT",
        ["token id 300 at index 1 of prompt '0'", "vocabulary of 300"],
    ),
    "token id negative": ({"token_ids": [[-1]]}, "INVALID_ARGUMENT", ["token id -1"]),
    "no prompts": ({"token_ids": []}, "INVALID_ARGUMENT", ["prompts", "at least 1"]),
    "prompt longer than the model": (
        {"token_ids": [[1] * 513]},
        "INVALID_ARGUMENT",
        ["513 tokens", "512", "max_positions"],
    ),
    "prompt id twice": (
        {"prompts": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]},
        "INVALID_ARGUMENT",
        ["'a'"],
    ),
    "too many prompts": ({"token_ids": [[1]] * 257}, "INVALID_ARGUMENT", ["257", "256"]),
    "layer that exists nowhere": (
        {"token_ids": GOOD, "layers": 3},
        "INVALID_ARGUMENT",
        ["layers: index 3"],
    ),
    "layer name that exists nowhere": (
        {"token_ids": GOOD, "layers": ["000.mamba"]},
        "INVALID_ARGUMENT",
        ["'000.mamba'"],
    ),
    "head that exists nowhere": (
        {"token_ids": GOOD, "heads": "0,4"},
        "INVALID_ARGUMENT",
        ["heads: index 4"],
    ),
    "position that exists nowhere": (
        {"token_ids": GOOD, "positions": 8},
        "INVALID_ARGUMENT",
        ["positions: index 8"],
    ),
    "more reference work than allowed": (
        {"token_ids": [[1] * 512] * 40, "measures": "singular_values:2"},
        "INVALID_ARGUMENT",
        ["max_reference_work"],
    ),
    "a tolerance that the fast route is too rough for": (
        {"token_ids": [[1] * 512] * 40, "measures": "tolerance:1e-7"},
        "INVALID_ARGUMENT",
        ["max_reference_work"],
    ),
    "too many measures": (
        {"token_ids": GOOD, "measures": [f"tolerance:{k}" for k in range(1, 66)]},
        "INVALID_ARGUMENT",
        ["65 measures", "64"],
    ),
    "prompt id too long": (
        {"prompts": [{"id": "x" * 257, "text": "x"}]},
        "INVALID_ARGUMENT",
        ["prompts[0].id: 257 bytes", "256"],
    ),
    "causal of attention": (
        {"token_ids": GOOD, "measures": "causal"},
        "INVALID_ARGUMENT",
        ["measures: causal", "'000'", "DenseOperator"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_refused(client, unharmed, case):
    arguments, code, parts = CASES[case]
    model = arguments.get("model", "tiny-llama")
    rest = {name: value for name, value in arguments.items() if name != "model"}
    refused(lambda: client.profile(model, **rest), code, *parts)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_out_of_range_is_refused(server, unharmed, tolerance):
    # Straight to the wire: the client would refuse it first.
    with grpc.insecure_channel(server.address) as channel:
        request = profiler_pb2.ProfileRequest(
            model="tiny-llama",
            prompts=[profiler_pb2.Prompt(text="hello")],
            measures=[measures_pb2.Measure(tolerance=tolerance)],
        )
        with pytest.raises(grpc.RpcError) as error:
            list(profiler_pb2_grpc.EssProfilerStub(channel).Profile(request))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith("measures[0]: ")


def test_an_unknown_measure_is_refused(server, client, unharmed):
    refused(
        lambda: client.profile("tiny-llama", token_ids=GOOD, measures="rank"),
        "INVALID_ARGUMENT",
        "rank",
    )
    with grpc.insecure_channel(server.address) as channel:
        request = profiler_pb2.ProfileRequest(
            model="tiny-llama",
            prompts=[profiler_pb2.Prompt(text="hello")],
            measures=[measures_pb2.Measure()],
        )
        with pytest.raises(grpc.RpcError) as error:
            list(profiler_pb2_grpc.EssProfilerStub(channel).Profile(request))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_empty_prompt_is_refused(client, unharmed):
    refused(lambda: client.profile("tiny-llama", prompts=[""]), "INVALID_ARGUMENT", "prompt")
    refused(lambda: client.profile("tiny-llama", token_ids=[[]]), "INVALID_ARGUMENT", "prompt")


def test_text_without_a_tokenizer_is_refused_and_token_ids_work(client):
    refused(
        lambda: client.profile("no-tokenizer", prompts=["x"]),
        "FAILED_PRECONDITION",
        "tokenizer.json",
    )
    assert client.profile("no-tokenizer", token_ids=GOOD).ess.sizes["position"] == 8


def test_the_servers_own_prompt_limit_holds(tmp_path, model_root):
    config = tmp_path / "server.textproto"
    config.write_text("max_prompt_tokens: 10")
    with (
        ServerProcess(f"--config={config}", f"--model_root={model_root}") as server,
        Client(server.address) as client,
    ):
        refused(
            lambda: client.profile("tiny-llama", token_ids=[[1] * 11]),
            "INVALID_ARGUMENT",
            "11 tokens; the limit is 10 (max_prompt_tokens)",
        )


def test_a_prompt_of_one_token_answers_a_zero(client):
    profile = client.profile("tiny-llama", token_ids=[[5]], measures=["tolerance:1e-3", "entropy"])
    assert profile.ess.sizes["position"] == 1
    assert (profile.ess.values == 0).all()


def break_safetensors(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def break_header(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[8] = ord("x")
    (folder / "model.safetensors").write_bytes(data)


# What is done to a good model -> the code of LoadModel and parts of its message.
BROKEN = {
    "truncated weights": (break_safetensors, "DATA_LOSS", ["model.safetensors", "truncated"]),
    "corrupt header": (break_header, "DATA_LOSS", ["model.safetensors", "header"]),
    "shape against config": (
        lambda f: tiny_models.edit_config(f, intermediate_size=64),
        "DATA_LOSS",
        ["mlp", "[48, 32]", "[64, 32]"],
    ),
    "missing tensor": (
        lambda f: tiny_models.edit_config(f, num_hidden_layers=4),
        "DATA_LOSS",
        ["layers.3.", "missing"],
    ),
    "unexpected tensor": (
        lambda f: tiny_models.edit_config(f, num_hidden_layers=2),
        "DATA_LOSS",
        ["unexpected", "layers.2."],
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "DATA_LOSS",
        ["there is no model.safetensors"],
    ),
    "unsupported model type": (
        lambda f: tiny_models.edit_config(f, model_type="abacus"),
        "FAILED_PRECONDITION",
        ["model_type", "abacus", "llama", "gpt2"],
    ),
    "broken config": (
        lambda f: (f / "config.json").write_text("{"),
        "DATA_LOSS",
        ["config.json"],
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text(json.dumps({"version": "1.0"})),
        "DATA_LOSS",
        ["tokenizer.json"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_fails_to_load_and_others_keep_serving(client, model_root, unharmed, case):
    damage, code, parts = BROKEN[case]
    name = "broken-" + case.replace(" ", "-")
    shutil.copytree(model_root / "tiny-llama", model_root / name)
    damage(model_root / name)

    refused(lambda: client.load_model(name), code, *parts)
    refused(
        lambda: client.profile(name, token_ids=GOOD),
        "FAILED_PRECONDITION",
        "could not be loaded",
        parts[0],
    )
    model = client.model(name)
    assert model.state.lower() == "failed"
    assert code in model.reason
    assert str(model_root) not in model.reason
    shutil.rmtree(model_root / name)


def test_a_repaired_model_loads_again(client, model_root):
    folder = model_root / "repaired"
    shutil.copytree(model_root / "tiny-llama", folder)
    break_safetensors(folder)
    refused(lambda: client.profile("repaired", token_ids=GOOD), "FAILED_PRECONDITION")

    shutil.copy(model_root / "tiny-llama" / "model.safetensors", folder / "model.safetensors")
    client.load_model("repaired")

    np.testing.assert_array_equal(
        client.profile("repaired", token_ids=GOOD).ess.values,
        client.profile("tiny-llama", token_ids=GOOD).ess.values,
    )
    shutil.rmtree(folder)


def test_no_error_holds_prompt_text(client, server):
    secret = "xyzzy-plugh"
    refused(
        lambda: client.profile("no-tokenizer", prompts=[secret]), "FAILED_PRECONDITION", "prompt"
    )
    client.profile("tiny-llama", prompts=[secret])
    assert secret not in server.log()
