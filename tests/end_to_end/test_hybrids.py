"""A model whose layers mix twice: two operators of each layer, from server to file and report."""

import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from ess_client import Client, InvalidArgument, load_profile
from ess_client.report import write_report

from . import tiny_models
from .server_process import ServerProcess

MODEL = "tiny-falcon-h1"
IDS = [[7, 3, 250, 11, 12, 4, 99, 42, 8, 120, 5, 17, 33, 2, 61, 200, 150], [9, 8, 7, 6, 5], [1]]
NAMES = ["000.attention", "000.mamba", "001.attention", "001.mamba"]
MEASURES = ["tolerance:0.01", "entropy"]
ATTENTION_HEADS, MAMBA_HEADS, STATES = 4, 6, 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrids")
    tiny_models.make_falcon_h1(folder / MODEL)
    return folder


@pytest.fixture(scope="module")
def hybrid_server(root):
    with ServerProcess(f"--model_root={root}") as process:
        yield process


@pytest.fixture(scope="module")
def hybrid_client(hybrid_server):
    with Client(hybrid_server.address, timeout=120) as connected:
        yield connected


@pytest.fixture(scope="module")
def profile(hybrid_client):
    return hybrid_client.profile(MODEL, token_ids=IDS, measures=MEASURES)


def test_a_layer_that_mixes_twice_gives_two_operators(profile):
    assert profile.layer_names == NAMES
    assert [layer.layer_index for layer in profile.layers] == [0, 0, 1, 1]
    assert [layer.operator_class for layer in profile.layers] == [
        "DenseOperator",
        "DiagonalRecurrence",
    ] * 2
    for name, heads in zip(NAMES, (ATTENTION_HEADS, MAMBA_HEADS) * 2, strict=True):
        assert profile[name].shape == (2, len(IDS), heads, len(IDS[0]))
        assert (profile.channels.sel(layer=name, head=slice(0, heads - 1)) == 8).all()
    assert (profile.channels.sel(layer="000.attention", head=[4, 5]) == 0).all()


def test_each_operator_has_the_state_size_of_its_class(profile):
    positions = np.arange(len(IDS[0]))
    tss = profile.tss.sel(prompt="0")
    for name in NAMES[::2]:
        np.testing.assert_array_equal(tss.sel(layer=name, head=0), positions)
    for name in NAMES[1::2]:
        np.testing.assert_array_equal(
            tss.sel(layer=name, head=5), np.minimum(positions, 1) * STATES
        )
        assert np.nanmax(profile[name, "tolerance:0.01"]) <= STATES


def test_the_counts_of_attention_are_those_of_the_public_maps(profile, root):
    model = AutoModelForCausalLM.from_pretrained(
        root / MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    for p, ids in enumerate(IDS):
        with torch.no_grad():
            maps = model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
        for name, layer in zip(NAMES[::2], maps, strict=True):
            for h, operator in enumerate(layer[0].double().numpy()):
                for i in range(1, len(ids)):
                    sigmas = np.linalg.svd(operator[i:, :i], compute_uv=False)
                    count = profile[name, "tolerance:0.01"].values[p, h, i]
                    assert (sigmas > 0.01 + 1e-5).sum() <= count <= (sigmas > 0.01 - 1e-5).sum()


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (1, NAMES[2:]),
        ("0-1", NAMES),
        ("001.mamba", ["001.mamba"]),
        (["001.attention", 0], NAMES[:3]),
    ],
)
def test_layers_are_chosen_by_index_or_by_the_name_of_an_operator(
    hybrid_client, profile, layers, names
):
    part = hybrid_client.profile(MODEL, token_ids=IDS, measures=MEASURES, layers=layers)

    assert part.layer_names == names
    for name in names:
        np.testing.assert_array_equal(part[name], profile[name])


def test_heads_that_only_one_of_the_operators_has(hybrid_client, profile):
    part = hybrid_client.profile(MODEL, token_ids=IDS, measures=MEASURES, heads="3-5")

    np.testing.assert_array_equal(part["001.attention"].coords["head"], [3])
    np.testing.assert_array_equal(part["001.mamba"].coords["head"], [3, 4, 5])
    np.testing.assert_array_equal(part["001.mamba"], profile["001.mamba"].sel(head=[3, 4, 5]))


def test_an_operator_that_there_is_not_is_named(hybrid_client):
    with pytest.raises(InvalidArgument, match="001.convolution"):
        hybrid_client.profile(MODEL, token_ids=IDS, layers="001.convolution")
    with pytest.raises(InvalidArgument, match="000.attention"):
        hybrid_client.profile(MODEL, token_ids=IDS, measures="causal")


def test_a_prompt_answers_the_same_bits_alone_and_in_a_batch(hybrid_client, profile):
    for p, ids in enumerate(IDS):
        alone = hybrid_client.profile(MODEL, token_ids=[ids], measures=MEASURES)
        for name in NAMES:
            in_batch = profile[name].values[:, p, :, : len(ids)]
            np.testing.assert_array_equal(alone[name].values[:, 0], in_batch)


def test_reductions_and_aggregates_keep_the_operators_apart(hybrid_client, profile):
    heads = hybrid_client.profile(MODEL, token_ids=IDS, measures=MEASURES, reduce="heads")

    for name in NAMES:
        np.testing.assert_allclose(heads[name], profile[name].mean("head"), rtol=1e-5)
    utilization = profile.utilization()
    assert list(utilization.layer.values) == NAMES
    for name in NAMES:
        used = profile[name, "tolerance:0.01"].values[:2, :, 1:]
        held = np.broadcast_to(profile.layer(name).tss[:2, None, 1:], used.shape)
        expected = np.nansum(used) / held[~np.isnan(used)].sum()
        found = utilization.sel(measure="tolerance:0.01", layer=name)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_model_s_description_names_both(hybrid_client):
    mixers = hybrid_client.model(MODEL).layers
    assert [mixer.name for mixer in mixers] == NAMES
    assert [mixer.layer_index for mixer in mixers] == [0, 0, 1, 1]


def test_metrics_carry_the_operators_names(hybrid_server, hybrid_client):
    def observed(layer):
        return hybrid_server.metric("ess_observations_total", model=MODEL, layer=layer)

    before = {name: observed(name) for name in NAMES}

    hybrid_client.profile(MODEL, token_ids=IDS, measures="tolerance:1e-3", layers="1")

    hybrid_server.wait_until_idle()
    # One-token prompts have no positions to observe.
    assert [observed(name) - before[name] for name in NAMES] == [0, 0, 2, 2]


def test_files_and_report_carry_the_operators_names(profile, tmp_path):
    file = tmp_path / "profile.safetensors"
    profile.save(file)

    with safe_open(file, framework="numpy") as saved:
        keys = set(saved.keys())
    for name in NAMES:
        assert f"layer.{name}/ess/tolerance:0.01" in keys
        assert f"layer.{name}/tss" in keys
    loaded = load_profile(file)
    for name in NAMES:
        np.testing.assert_array_equal(loaded[name], profile[name])

    write_report(loaded, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert all(re.search(re.escape(name), text) for name in NAMES)


def test_the_estimate_counts_both(hybrid_client):
    both = hybrid_client.estimate(MODEL, token_ids=IDS, measures=MEASURES)
    one = hybrid_client.estimate(MODEL, token_ids=IDS, measures=MEASURES, layers="000.mamba")
    assert set(both.routes) == {"DenseOperator", "DiagonalRecurrence"}
    assert set(one.routes) == {"DiagonalRecurrence"}
    assert both.response_bytes > one.response_bytes
