"""A model trained by ess_client.testbed, saved, and profiled by the server."""

import json
import re

import numpy as np
import pytest

from ess_client import Client, DataLoss, FailedPrecondition
from ess_client.testbed import MIXERS, EssTestbedConfig, EssTestbedModel, mqar_batches, train
from ess_client.testbed.config import FLAGS, RANGES, SIZES

from .server_process import ServerProcess

TOLERANCES = (1e-1, 1e-3)
LENGTHS = (24, 7, 1)

# Changes of a tiny config of which no model can be made; messages name the first key.
BAD_VALUES = [
    *({key: value} for key in SIZES + ("state_size",) for value in (0, -1, 2**24 + 1, 4.5, "8")),
    *({key: limit} for key, (low, _) in RANGES.items() for limit in (low - 1, "1", True)),
    *({key: 2 * high} for key, (_, high) in RANGES.items()),
    *({key: 1} for key in FLAGS),
    {"attention_scale": -0.5},
    {"attention_scale": 2e6},
    {"recurrence_scale": -1},
    {"hidden_size": 2**24, "num_attention_heads": 1},
    {"hidden_size": 18},
    {"state_size": 5, "mixers": ["LA"]},
    {"state_size": 2**23},
    {"mixers": ["GLA"] * 4097},
    {"mixers": []},
    {"mixers": "GLA"},
    {"mixers": [3]},
    {"mlp": "relu"},
    {"norm": 2},
    {"time_step_max": 0.01, "time_step_min": 0.1},
]
# On the border of what is supported, and null, which is the default.
GOOD_VALUES = [
    *({key: low} for key, (low, _) in RANGES.items() if not key.startswith("time_step")),
    *({key: high} for key, (_, high) in RANGES.items() if not key.startswith("time_step")),
    {"time_step_max": 1e-12, "time_step_min": 1e-12},
    {"attention_scale": 0, "mixers": ["SA"]},
    {"attention_scale": None, "intermediate_size": None, "beta": None, "output_gate": None},
    {"hidden_size": 1, "num_attention_heads": 1, "mixers": ["S6"], "gate_rank": 1},
]


@pytest.fixture(scope="module")
def trained():
    config = EssTestbedConfig(
        vocab_size=40,
        mixers=MIXERS,
        hidden_size=16,
        num_attention_heads=2,
        gate_rank=2,
        initializer_range=0.2,
    )
    model = EssTestbedModel(config, seed=1)
    data = mqar_batches(vocab_size=40, length=24, pairs=5, batch_size=8, seed=2)
    train(model, data, steps=5)
    return model, next(data).token_ids[0]


@pytest.fixture(scope="module")
def client(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    trained[0].save_pretrained(root / "trained")
    broken = {"unknown-mixer": {"mixers": ["GLA"] * 5 + ["gru"]}, "too-few": {"mixers": ["GLA"]}}
    for name, changes in broken.items():
        trained[0].save_pretrained(root / name)
        config = json.loads((root / name / "config.json").read_text())
        (root / name / "config.json").write_text(json.dumps({**config, **changes}))
    with (
        ServerProcess(f"--model_root={root}") as server,
        Client(server.address, timeout=120) as connected,
    ):
        yield connected


def test_layers_are_what_the_config_mixes(client, trained):
    model, _ = trained
    info = client.load_model("trained")
    assert info.architecture == "ess_testbed"
    assert [layer.operator_class for layer in info.layers] == [
        "DenseOperator",
        "DiagonalRecurrence",
        "DiagonalRecurrence",
        "DiagonalRecurrence",
        "SelectiveScan",
        "DiagonalRecurrence",
    ]
    for layer, mixer in zip(info.layers, model.mixers, strict=True):
        assert layer.head_count == mixer.operator_count
        assert set(layer.channels) == {mixer.channels}
    assert info.parameters == sum(tensor.numel() for tensor in model.parameters())


def test_counts_lie_between_the_twins_at_close_tolerances(client, trained):
    model, token_ids = trained
    prompts = [token_ids[:length] for length in LENGTHS]
    measures = [f"tolerance:{tolerance}" for tolerance in TOLERANCES]
    profile = client.profile(
        "trained", token_ids=[prompt.tolist() for prompt in prompts], measures=measures
    )
    compared = 0
    for p, prompt in enumerate(prompts):
        for layer in model.operators(prompt.unsqueeze(0)):
            tss = profile.tss.sel(layer=layer.name)[p, 0, : len(prompt)]
            assert np.array_equal(tss, layer.tss)
            for measure, tolerance in zip(measures, TOLERANCES, strict=True):
                ours = profile[layer.name, measure].values[p][:, : len(prompt)]
                width = 1e-4 * tolerance + 1e-5
                low = layer.ess(f"tolerance:{tolerance + width}")[0].numpy()
                high = layer.ess(f"tolerance:{tolerance - width}")[0].numpy()
                assert ((low <= ours) & (ours <= high)).all()
                compared += ours.size
    assert compared == 2 * sum(LENGTHS) * (5 * 2 + 16)


def test_the_twin_and_the_server_refuse_the_same_configs(tmp_path):
    def write(name, changes):
        tiny = {"vocab_size": 8, "hidden_size": 16, "num_attention_heads": 4, "mixers": ["GLA"]}
        config = {"model_type": "ess_testbed", **tiny, **changes}
        mixers = config["mixers"]
        config["num_hidden_layers"] = len(mixers) if isinstance(mixers, list) else 1
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return config

    with (
        ServerProcess(f"--model_root={tmp_path}") as server,
        Client(server.address, timeout=120) as client,
    ):
        for index, changes in enumerate(GOOD_VALUES):
            EssTestbedConfig.from_dict(write(f"good-{index}", changes))
            client.load_model(f"good-{index}", random_init=1)
        for index, changes in enumerate(BAD_VALUES):
            config = write(f"bad-{index}", changes)
            names_it = pytest.raises(ValueError, match=rf"\b{next(iter(changes))}\b")
            with names_it:
                EssTestbedConfig.from_dict(config)
            # Training is the twin's alone.
            if "dropout" in changes:
                continue
            with pytest.raises((FailedPrecondition, DataLoss)) as refused:
                client.load_model(f"bad-{index}", random_init=1)
            assert re.search(rf"\b({'|'.join(changes)}|num_hidden_layers)\b", str(refused.value))


def test_prompts_of_text_need_a_tokenizer(client):
    with pytest.raises(FailedPrecondition, match="tokenizer"):
        client.profile("trained", prompts=["hello"])


def test_what_no_model_can_be_made_of_is_refused_by_name(client):
    with pytest.raises(FailedPrecondition, match=r"mixers .*gru.*GLA-S6"):
        client.load_model("unknown-mixer")
    with pytest.raises(DataLoss, match="mixers has 1 entries; expected 6"):
        client.load_model("too-few")
