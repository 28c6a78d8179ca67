"""ess_testbed against the PyTorch twin that trains it (ess_client.testbed), whose operators are
formed in float64 state by state."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import numpy as np
import pytest
import test_initial_weights
import torch
from safetensors.numpy import load_file

from ess_client.testbed import EssTestbedConfig, EssTestbedModel

RAGGED = [1, 2, 7, 33, 70]

# Fields that differ from BASE.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "gate_rank": 4,
    "intermediate_size": 40,
    # Large enough that attention is far from uniform; scores of recurrences grow with it.
    "initializer_range": 0.35,
    "alpha": 8.0,
}
CASES: dict[str, dict[str, Any]] = {
    "SA": {"mixers": ("SA", "SA"), "tie_word_embeddings": True},
    "SA, unscaled, another theta, gated": {
        "mixers": ("SA", "SA"),
        "attention_scale": 1.0,
        "rope_theta": 100.0,
        "output_gate": True,
    },
    "LA": {"mixers": ("LA", "LA")},
    "LA, more states than channels, no norm of its output": {
        "mixers": ("LA", "LA"),
        "state_size": 14,
        "output_norm": False,
        "recurrence_scale": 0.05,
    },
    "WLA": {"mixers": ("WLA", "WLA"), "beta": 4.0},
    "GLA": {"mixers": ("GLA", "GLA")},
    "GLA, odd states, strong gates, layer norms": {
        "mixers": ("GLA", "GLA"),
        "state_size": 5,
        "beta": 0.5,
        "norm": "layer",
        "num_attention_heads": 4,
    },
    "S6": {"mixers": ("S6", "S6")},
    "S6, few states, slow rates, gated, gelu": {
        "mixers": ("S6", "S6"),
        "state_size": 3,
        "rate_divisor": 30.0,
        "output_gate": True,
        "mlp": "gelu",
    },
    "GLA-S6": {"mixers": ("GLA-S6", "GLA-S6")},
    "GLA-S6, a ramp of 1 to N": {"mixers": ("GLA-S6", "GLA-S6"), "alpha": 1.0, "state_size": 7},
    "hybrid of GLA and SA": {"mixers": ("GLA", "SA", "GLA"), "num_attention_heads": 1},
    "all six, no feed-forward": {
        "mixers": ("WLA", "S6", "SA", "GLA-S6", "LA", "GLA"),
        "mlp": "none",
        "norm": "layer",
        "initializer_range": 0.25,
    },
}


def make_model(case: str, seed: int) -> EssTestbedModel:
    """As initialised, with what starts at a constant moved away from it."""
    model = EssTestbedModel(EssTestbedConfig(**{**BASE, **CASES[case]}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.add_(0.2 * noise)
            elif name.endswith(".A"):
                # Rates of S6 stay above 0.
                parameter.copy_(noise if parameter.dim() == 2 else parameter * (0.2 * noise).exp())
    return model


@pytest.mark.parametrize("case", CASES)
def test_ess_testbed_equals_its_twin(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = 700 + list(CASES).index(case)
    make_model(case, seed).save_pretrained(tmp_path)
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed)

    def run(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        model = EssTestbedModel.from_pretrained(folder).eval()
        with torch.no_grad():
            logits, inputs = model.logits_and_inputs(torch.tensor([prompt]))
        layers = model.operators_of_inputs(inputs)
        operators = [layer.operators[0].numpy() for layer in layers]
        attention = [
            maps for maps, kind in zip(operators, model.config.mixers, strict=True) if kind == "SA"
        ]
        if attention:
            model_parity.check_not_uniform(attention)
        return logits[0].numpy(), operators

    row = model_parity.compare(f"ess_testbed, {case}", tmp_path, prompts, run=run)

    record_row(row)
    model_parity.check(row)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_start_as_the_twins(tmp_path: pathlib.Path, tied: bool) -> None:
    config = EssTestbedConfig(
        vocab_size=300,
        mixers=("WLA", "S6", "GLA", "SA"),
        hidden_size=96,
        norm="layer" if tied else "rms",
        tie_word_embeddings=tied,
        output_gate=True,
        initializer_range=0.07,
        rate_divisor=3.0,
        time_step_min=0.01,
    )
    EssTestbedModel(config, seed=3).save_pretrained(tmp_path)
    twin = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()

    ours = test_initial_weights.capture(tmp_path, seed=4)

    assert ours.keys() == twin.keys()
    for name, values in twin.items():
        test_initial_weights.check_same_distribution(name, ours[name], values)
        if name.endswith(".A"):
            np.testing.assert_allclose(ours[name], values, rtol=1e-6, err_msg=name)
