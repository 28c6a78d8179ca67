"""mamba, falcon_mamba and mamba2 against transformers. Their mixers give no operators; the public
ones are formed here in float64 from what goes into the public scan."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import numpy as np
import pytest
import torch
import transformers
from transformers.models.falcon_mamba import modeling_falcon_mamba
from transformers.models.mamba import modeling_mamba
from transformers.models.mamba2 import modeling_mamba2

RAGGED = [1, 2, 7, 33, 70]

# Fields that differ from BASE; the model type is the case's first word.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 16,
    "state_size": 8,
    "num_hidden_layers": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"num_heads": 4, "head_dim": 8}
CASES: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba, biases, untied, rank 5": {
        "use_bias": True,
        "tie_word_embeddings": False,
        "time_step_rank": 5,
    },
    "mamba, no bias in the convolution, 2 taps, gelu": {
        "use_conv_bias": False,
        "conv_kernel": 2,
        "hidden_act": "gelu",
    },
    # A norm of one number would be its sign.
    "falcon_mamba": {"time_step_rank": 4},
    "falcon_mamba, wide epsilon": {"time_step_rank": 3, "mixer_rms_eps": 1e-2, "expand": 3},
    "mamba2, one group": {**HEADS, "n_groups": 1},
    "mamba2, two groups, biases": {**HEADS, "n_groups": 2, "use_bias": True},
    "mamba2, a group for every head, tied": {
        **HEADS,
        "n_groups": 4,
        "tie_word_embeddings": True,
        "use_conv_bias": False,
    },
    "mamba2, bounded time steps, chunks of 16": {
        **HEADS,
        "n_groups": 2,
        "time_step_limit": (0.1, 0.9),
        "chunk_size": 16,
    },
}


def decays(log_gates: np.ndarray) -> np.ndarray:
    """exp(sum over (j, i] of log_gates): [..., L] => [..., L, L], 0 above the diagonal."""
    total = np.cumsum(log_gates, axis=-1)
    difference = total[..., :, None] - total[..., None, :]
    return np.tril(np.exp(np.minimum(difference, 0)))


def channel_operators(delta: torch.Tensor, A: Any, B: Any, C: Any) -> np.ndarray:
    """Mamba: delta [E, L], A [E, N], B and C [N, L] => [E, L, L]."""
    wide = delta.double().numpy()
    b, c = B.double().numpy(), C.double().numpy()
    total = np.zeros((wide.shape[0], wide.shape[1], wide.shape[1]))
    for state, rates in enumerate(A.double().numpy().T):
        total += decays(wide * rates[:, None]) * np.multiply.outer(c[state], b[state])
    return total * wide[:, None, :]


def head_operators(delta: torch.Tensor, A: Any, B: Any, C: Any) -> np.ndarray:
    """Mamba-2: delta [L, H], A [H], B and C [L, G, N] => [H, L, L]."""
    wide = delta.double().numpy().T
    heads = wide.shape[0] // B.shape[1]
    b = np.repeat(B.double().numpy().transpose(1, 0, 2), heads, axis=0)
    c = np.repeat(C.double().numpy().transpose(1, 0, 2), heads, axis=0)
    gates = decays(wide * A.double().numpy()[:, None])
    return gates * (c @ b.transpose(0, 2, 1)) * wide[:, None, :]


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The operators of the public scans, in the order in which they run."""
    operators: list[np.ndarray] = []

    def record_channels(module: Any) -> None:
        scan = module.mamba_selective_scan

        def recording(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
            delta = torch.nn.functional.softplus(dt + kwargs["delta_bias"][:, None])
            operators.append(channel_operators(delta[0], A, B[0], C[0]))
            return scan(x, dt, A, B, C, **kwargs)

        monkeypatch.setattr(module, "mamba_selective_scan", recording)

    chunk_scan = modeling_mamba2.mamba2_chunk_scan

    def record_heads(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
        delta = torch.nn.functional.softplus(dt + kwargs["dt_bias"]).clamp(*kwargs["dt_limit"])
        operators.append(head_operators(delta[0], A, B[0], C[0]))
        return chunk_scan(x, dt, A, B, C, **kwargs)

    record_channels(modeling_mamba)
    record_channels(modeling_falcon_mamba)
    monkeypatch.setattr(modeling_mamba2, "mamba2_chunk_scan", record_heads)
    return operators


@pytest.mark.parametrize("case", CASES)
def test_mamba_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    scanned: list[np.ndarray],
) -> None:
    seed = 200 + list(CASES).index(case)
    config = transformers.AutoConfig.for_model(case.split(",")[0], **{**BASE, **CASES[case]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(tmp_path)
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed)

    def run(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        scanned.clear()
        public = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            logits = public.eval()(torch.tensor([prompt]), use_cache=False).logits[0].numpy()
        assert len(scanned) == config.num_hidden_layers
        return logits, list(scanned)

    row = model_parity.compare(case, tmp_path, prompts, run=run)

    record_row(row)
    model_parity.check(row)
