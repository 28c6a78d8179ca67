"""s4d, in the layout of docs/s4d.md, against the published formulas in plain torch and float64."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import numpy as np
import pytest
import test_initial_weights
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

RAGGED = [1, 2, 7, 33, 70]
BASE: dict[str, Any] = {
    "model_type": "s4d",
    "vocab_size": 67,
    "hidden_size": 6,
    "state_size": 8,
    "num_hidden_layers": 3,
}
CASES: dict[str, dict[str, Any]] = {
    "s4d": {},
    "s4d, bilinear": {"discretization": "bilinear"},
    "s4d, norms last": {"norm_first": False},
    "s4d, norms last, bilinear, tied": {
        "norm_first": False,
        "discretization": "bilinear",
        "tie_word_embeddings": True,
    },
    "s4d, one mode": {"state_size": 2, "hidden_size": 10},
    "s4d, more states than positions": {"state_size": 96, "hidden_size": 3},
    "s4d, tied": {"tie_word_embeddings": True, "hidden_size": 7},
    "s4d, relu, wide epsilon": {"hidden_act": "relu", "layer_norm_epsilon": 1e-2},
    "s4d, one layer, silu": {"hidden_act": "silu", "num_hidden_layers": 1},
}
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def random_checkpoint(folder: pathlib.Path, config: dict[str, Any], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    width, modes = config["hidden_size"], config["state_size"] // 2

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + 0.2 * noise(width), f"{name}.bias": 0.3 * noise(width)}

    tensors = {"embeddings.weight": noise(config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        s4d = f"layers.{layer}.s4d."
        tensors |= norm(f"layers.{layer}.norm")
        tensors[s4d + "kernel.log_dt"] = 0.7 * noise(width) - 2  # Memories of a few positions up.
        tensors[s4d + "kernel.log_A_real"] = 0.5 * noise(width, modes) - 0.7
        tensors[s4d + "kernel.A_imag"] = torch.pi * torch.arange(modes) + 0.3 * noise(width, modes)
        tensors[s4d + "kernel.C"] = noise(width, modes, 2)
        tensors[s4d + "D"] = noise(width)
        tensors[s4d + "output_linear.0.weight"] = noise(2 * width, width, 1)
        tensors[s4d + "output_linear.0.bias"] = 0.3 * noise(2 * width)
    if config.get("norm_first", True):
        tensors |= norm("norm")
    if not config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = noise(config["vocab_size"], width)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


def kernel(weights: dict[str, torch.Tensor], prefix: str, bilinear: bool, length: int) -> Any:
    """K_t = 2 Re sum over n of C_n B_n A_n^t, after discretization: [D, L]."""
    delta = weights[prefix + "log_dt"].exp()[:, None]
    rates = torch.complex(-weights[prefix + "log_A_real"].exp(), weights[prefix + "A_imag"])
    if bilinear:
        A = (1 + delta * rates / 2) / (1 - delta * rates / 2)
        B = delta / (1 - delta * rates / 2)
    else:
        A = torch.exp(delta * rates)
        B = (A - 1) / rates
    C = torch.view_as_complex(weights[prefix + "C"])
    powers = A[..., None] ** torch.arange(length)
    return 2 * torch.einsum("hn,hnl->hl", B * C, powers).real


def run_published(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    config = json.loads((folder / "config.json").read_text())
    stored = load_file(folder / "model.safetensors")
    weights = {name: tensor.double() for name, tensor in stored.items()}
    activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
    norm_first = config.get("norm_first", True)
    bilinear = config.get("discretization", "zoh") == "bilinear"
    length = len(prompt)
    lags = torch.arange(length)[:, None] - torch.arange(length)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        epsilon = config.get("layer_norm_epsilon", 1e-5)
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    operators = []
    hidden = weights["embeddings.weight"][prompt]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"layers.{layer}."
        x = norm(hidden, prefix + "norm") if norm_first else hidden
        taps = kernel(weights, prefix + "s4d.kernel.", bilinear, length)
        T = torch.where(lags >= 0, taps[:, lags.clamp(min=0)], 0)  # [D, L, L]
        operators.append(T.numpy())
        y = torch.einsum("hij,jh->ih", T, x) + x * weights[prefix + "s4d.D"]
        output = prefix + "s4d.output_linear.0."
        y = F.conv1d(activation(y).T, weights[output + "weight"], weights[output + "bias"]).T
        hidden = hidden + F.glu(y, -1)
        hidden = hidden if norm_first else norm(hidden, prefix + "norm")
    hidden = norm(hidden, "norm") if norm_first else hidden
    head = weights.get("lm_head.weight", weights["embeddings.weight"])
    return (hidden @ head.T).numpy(), operators


@pytest.mark.parametrize("case", CASES)
def test_s4d_equals_the_published_formulas(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = 700 + list(CASES).index(case)
    config = {**BASE, **CASES[case]}
    random_checkpoint(tmp_path, config, seed)
    prompts = model_parity.random_prompts(RAGGED, config["vocab_size"], seed)

    row = model_parity.compare(case, tmp_path, prompts, run=run_published)

    record_row(row)
    model_parity.check(row)


def test_weights_start_as_published(tmp_path: pathlib.Path) -> None:
    """S4D-Lin; the other parameters as the public code draws them."""
    width, modes, layers = 40, 16, 6
    config = {**BASE, "hidden_size": width, "state_size": 2 * modes, "num_hidden_layers": layers}
    (tmp_path / "config.json").write_text(json.dumps(config))
    generator = np.random.default_rng(0)
    bound = width**-0.5

    pooled = test_initial_weights.pooled(test_initial_weights.capture(tmp_path, seed=1))

    s4d = "layers.*.s4d."
    frequencies = np.broadcast_to(np.pi * np.arange(modes), (layers, width, modes))
    expected = {
        "kernel.log_dt": generator.uniform(np.log(1e-3), np.log(1e-1), (layers, width)),
        "kernel.log_A_real": np.full((layers, width, modes), np.log(0.5)),
        "kernel.C": generator.normal(0, 0.5**0.5, (layers, width, modes, 2)),
        "D": generator.normal(0, 1, (layers, width)),
        "output_linear.0.weight": generator.uniform(-bound, bound, (layers, 2 * width, width, 1)),
        "output_linear.0.bias": generator.uniform(-bound, bound, (layers, 2 * width)),
    }
    np.testing.assert_allclose(pooled[s4d + "kernel.A_imag"], frequencies, rtol=1e-6)
    for name, values in expected.items():
        test_initial_weights.check_same_distribution(name, pooled[s4d + name], values)
