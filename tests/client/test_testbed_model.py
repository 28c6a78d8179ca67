"""The testbed's mixers: what they compute, the operators they show, and checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ess_client.testbed import MIXERS, EssTestbedConfig, EssTestbedModel
from ess_client.testbed.mixers import Mixer, make_mixer

CONFIG = EssTestbedConfig(
    vocab_size=31,
    mixers=MIXERS,
    hidden_size=16,
    num_attention_heads=4,
    state_size=6,
    intermediate_size=24,
    gate_rank=3,
    alpha=4.0,
    initializer_range=0.4,
)
# On both sides of the chunks of 16 and 64 positions.
LENGTHS = (1, 2, 15, 16, 17, 33, 65)


def make(kind: str, **changes: object) -> Mixer:
    config = dataclasses.replace(CONFIG, mixers=(kind,), **changes)
    return EssTestbedModel(config, seed=3).double().mixers[0]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_mixer_applies_the_operators_that_it_shows(kind: str, length: int) -> None:
    mixer = make(kind)
    x, values = noise(2, length, 16), noise(2, length, 16)

    operators = mixer.operators(x)
    mixed = mixer.mix(x, values)

    # [B, L, D] => [B, H, L, c]: the channels of each operator.
    of_operators = values.unflatten(-1, (mixer.operator_count, -1)).transpose(1, 2)
    expected = (operators @ of_operators).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(mixed, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", MIXERS)
def test_operators_are_causal_and_their_rank_is_the_state_at_most(kind: str) -> None:
    mixer = make(kind)
    operators = mixer.operators(noise(2, 20, 16))

    assert operators.shape == (2, mixer.operator_count, 20, 20)
    assert operators.dtype == torch.float64
    assert torch.equal(operators, operators.tril())
    ranks = torch.linalg.matrix_rank(operators[..., 10:, :10], rtol=1e-12)
    assert int(ranks.max()) <= int(mixer.tss(20)[10])
    assert mixer.operator_count * mixer.channels == 16


def step_by_step(c, b, a, u):
    """The paper's recurrence for one operator: c, b, a [L, N], u [L]."""
    state, outputs = torch.zeros(b.shape[-1]).double(), []
    for c_t, b_t, a_t, u_t in zip(c, b, a, u, strict=True):
        state = a_t * state + b_t * u_t
        outputs.append(c_t @ state)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", ["WLA", "GLA", "GLA-S6"])
def test_a_gated_mixer_is_the_papers_recurrence(kind: str) -> None:
    mixer = make(kind, recurrence_scale=0.5)
    x, values = noise(1, 9, 16), noise(1, 9, 16)
    with torch.no_grad():
        if kind == "WLA":
            mixer.A.copy_(noise(4, 6))
            gates = torch.sigmoid(mixer.A).expand(9, 4, 6) ** (1 / CONFIG.beta)
        else:
            features = (x[0] @ mixer.gk_proj[0].weight.T @ mixer.gk_proj[1].weight.T).view(9, 4, 6)
            ramp = torch.arange(1, 7) / CONFIG.alpha
            gates = (
                torch.sigmoid(features) ** (1 / CONFIG.beta)
                if kind == "GLA"
                else torch.exp(-ramp * torch.log1p(features.exp()))
            )
    queries = 0.5 * (x[0] @ mixer.q_proj.weight.T).view(9, 4, 6)
    keys = (x[0] @ mixer.k_proj.weight.T).view(9, 4, 6)

    mixed = mixer.mix(x, values)[0]

    for channel in range(16):
        head = channel // 4
        expected = step_by_step(
            queries[:, head], keys[:, head], gates[:, head], values[0, :, channel]
        )
        torch.testing.assert_close(mixed[:, channel], expected)


def test_s6_is_the_papers_recurrence_with_rates_that_channels_share() -> None:
    mixer = make("S6")
    x, values = noise(1, 9, 16), noise(1, 9, 16)
    c, b = x[0] @ mixer.q_proj.weight.T, x[0] @ mixer.k_proj.weight.T
    delta = torch.log1p((x[0] @ mixer.dt_proj.weight.T + mixer.dt_proj.bias).exp())

    mixed = mixer.mix(x, values)[0]

    for channel in (0, 7, 15):
        step = delta[:, channel, None]
        gates = torch.exp(-torch.arange(1, 7) * step)
        expected = step_by_step(c, step * b, gates, values[0, :, channel])
        torch.testing.assert_close(mixed[:, channel], expected)


def test_la_and_sa_know_relative_positions_only() -> None:
    """Equal inputs at all positions: shares within a row depend on the distance alone."""
    for kind in ("SA", "LA"):
        operators = make(kind).operators(noise(1, 1, 16).expand(1, 12, 16))[0]
        early, late = (
            torch.stack([operators[:, i, i - d] / operators[:, i, i] for d in range(3)])
            for i in (5, 9)
        )
        torch.testing.assert_close(early, late, rtol=1e-5, atol=1e-6)
        assert (late[1:] - 1).abs().max() > 0.1


def test_a_later_token_changes_nothing_before() -> None:
    model = EssTestbedModel(dataclasses.replace(CONFIG, output_gate=True), seed=0)
    token_ids = torch.arange(30).unsqueeze(0)
    changed = token_ids.clone()
    changed[0, 20] = 1

    before, after = model(token_ids)[0], model(changed)[0]

    torch.testing.assert_close(before[:20], after[:20])
    assert (before[20] - after[20]).abs().max() > 1e-3


def test_state_sizes_by_default_and_as_asked() -> None:
    by_default = EssTestbedConfig(vocab_size=5, mixers=MIXERS, hidden_size=64)
    assert [by_default.states(kind) for kind in MIXERS] == [8, 8, 8, 8, 16, 8]
    asked = dataclasses.replace(by_default, state_size=32)
    assert [asked.states(kind) for kind in MIXERS] == [8, 32, 32, 32, 32, 32]
    assert make("GLA").tss(4).tolist() == [0, 6, 6, 6]
    assert make("SA").tss(4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "norm": "layer", "mlp": "gelu"},
        {"mlp": "none", "output_norm": False, "output_gate": True, "state_size": None},
    ],
)
def test_a_checkpoint_gives_the_same_model(tmp_path: Path, changes: dict[str, object]) -> None:
    model = EssTestbedModel(dataclasses.replace(CONFIG, **changes), seed=4)
    model.save_pretrained(tmp_path / "model")

    loaded = EssTestbedModel.from_pretrained(tmp_path / "model")

    assert loaded.config == model.config
    token_ids = torch.arange(20).unsqueeze(0)
    assert torch.equal(loaded(token_ids), model(token_ids))
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["model_type"] == "ess_testbed"
    assert written["num_hidden_layers"] == len(written["mixers"]) == 6
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert ("lm_head.weight" in names) != model.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixers": ["GLA", "gru"]}, "mixers has 'gru'; supported: SA, LA"),
        ({"mixers": []}, "mixers has 0 entries; supported: 1 to 4096"),
        ({"mixers": "GLA"}, "mixers is 'GLA'; expected a list"),
        ({"mlp": "relu"}, "mlp is 'relu'; supported: swiglu, gelu, none"),
        ({"norm": "batch"}, "norm is 'batch'; supported: rms, layer"),
        ({"hidden_size": 30}, "hidden_size is 30, not a multiple of num_attention_heads = 8"),
        ({"mixers": ["LA"], "state_size": 5}, "state_size is 5, but queries of LA rotate in pairs"),
        ({"beta": 0}, "beta is 0; supported: 1e-06 to 1e\\+12"),
        ({"beta": "16"}, "beta is '16'; expected a number"),
        ({"recurrence_scale": -1.0}, "recurrence_scale is -1.0; supported: 0 to 1e\\+06"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; supported: 1 to 16777216"),
        ({"num_attention_heads": 2.0}, "num_attention_heads is 2.0; expected an integer"),
        ({"state_size": 2**22}, "num_attention_heads \\* state_size up to 16777216"),
        ({"output_gate": 1}, "output_gate is 1; expected true or false"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"time_step_max": 1e-4}, "time_step_max is 0.0001, below time_step_min = 0.001"),
        ({"heads": 3}, "unknown keys heads"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but mixers has 2"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EssTestbedConfig.from_dict({"vocab_size": 5, **values})


def test_initial_values_have_the_distributions_of_the_table() -> None:
    config = EssTestbedConfig(
        vocab_size=400,
        mixers=("WLA", "S6", "GLA"),
        hidden_size=256,
        norm="layer",
        initializer_range=0.05,
        rate_divisor=4.0,
        time_step_min=1e-2,
        time_step_max=1.0,
    )
    tensors = dict(EssTestbedModel(config, seed=9).named_parameters())

    drawn = [name for name in tensors if "proj" in name and name.endswith("weight")]
    assert {"layers.2.mixer.gk_proj.1.weight", "layers.1.mixer.dt_proj.weight"} <= set(drawn)
    for name in [*drawn, "embed_tokens.weight", "lm_head.weight"]:
        values = tensors[name].detach()
        assert abs(float(values.std()) / 0.05 - 1) < 5 / np.sqrt(2 * values.numel()), name
        assert abs(float(values.mean())) < 5 * 0.05 / np.sqrt(values.numel()), name
    for name, values in tensors.items():
        if "norm" in name:
            assert torch.all(values == (1 if name.endswith("weight") else 0)), name
    assert torch.all(tensors["layers.0.mixer.A"] == 0)
    torch.testing.assert_close(tensors["layers.1.mixer.A"].detach(), torch.arange(1, 17) / 4)
    steps = torch.nn.functional.softplus(tensors["layers.1.mixer.dt_proj.bias"]).detach()
    assert float(steps.min()) >= 0.99e-2
    assert float(steps.max()) <= 1.01
    assert abs(float(steps.log().mean()) - np.log(0.1)) < 0.4


def test_the_seed_decides_the_weights() -> None:
    first, same, other = (EssTestbedModel(CONFIG, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])


def test_make_mixer_knows_every_kind() -> None:
    assert [make_mixer(CONFIG, kind).kind for kind in MIXERS] == list(MIXERS)
