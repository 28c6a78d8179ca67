"""mamba, falcon_mamba and mamba2 against transformers. Their mixers give no operators; the public
ones are formed here in float64 from what goes into the public scan."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import numpy as np
import pytest
import torch
import transformers
from public_operators import channel_operators, head_operators
from safetensors.torch import load_file, save_file
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


def save(folder: pathlib.Path, model_type: str, seed: int, **fields: Any) -> None:
    config = transformers.AutoConfig.for_model(model_type, **{**BASE, **fields})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder)


def compare(
    case: str, ours: pathlib.Path, public: pathlib.Path, seed: int, scanned: list[np.ndarray]
) -> model_parity.ParityRow:
    """Two folders with the same model; `scanned` is the fixture."""

    def run(_: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        scanned.clear()
        model = transformers.AutoModelForCausalLM.from_pretrained(public, dtype=torch.float32)
        with torch.no_grad():
            logits = model.eval()(torch.tensor([prompt]), use_cache=False).logits[0].numpy()
        assert len(scanned) == BASE["num_hidden_layers"]
        return logits, list(scanned)

    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed)
    return model_parity.compare(case, ours, prompts, run=run)


@pytest.mark.parametrize("case", CASES)
def test_mamba_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    scanned: list[np.ndarray],
) -> None:
    seed = 200 + list(CASES).index(case)
    save(tmp_path, case.split(",")[0], seed, **CASES[case])

    row = compare(case, tmp_path, tmp_path, seed, scanned)

    record_row(row)
    model_parity.check(row)


# The config of mamba_ssm that says what the fields of transformers say: case -> (fields, config).
STACK = {"d_model": 16, "n_layer": 3, "vocab_size": 67, "rms_norm": True, "fused_add_norm": True}
MAMBA_SSM_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mamba, layout of mamba_ssm": (
        {"state_size": 16, "vocab_size": 72},
        {**STACK, "ssm_cfg": {}},
    ),
    "mamba, layout of mamba_ssm, every option": (
        {"expand": 3, "time_step_rank": 5, "use_bias": True, "use_conv_bias": False,
         "conv_kernel": 3, "vocab_size": 68},
        {**STACK, "pad_vocab_size_multiple": 4, "d_intermediate": 0, "attn_layer_idx": [],
         "ssm_cfg": {"layer": "Mamba1", "d_state": 8, "expand": 3, "dt_rank": 5, "bias": True,
                     "conv_bias": False, "d_conv": 3}},
    ),
    "mamba2, layout of mamba_ssm": (
        {"state_size": 128, "num_heads": 1, "head_dim": 64, "expand": 4, "n_groups": 1,
         "vocab_size": 72},
        {**STACK, "ssm_cfg": {"layer": "Mamba2", "expand": 4}},
    ),
    "mamba2, layout of mamba_ssm, every option": (
        {**HEADS, "n_groups": 2, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3,
         "time_step_limit": (0.1, 0.9)},
        {**STACK, "pad_vocab_size_multiple": 1, "tie_embeddings": False,
         "ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 8, "ngroups": 2, "bias": True,
                     "conv_bias": False, "d_conv": 3, "dt_limit": [0.1, 0.9]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MAMBA_SSM_CASES)
def test_checkpoints_of_mamba_ssm_are_read(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    scanned: list[np.ndarray],
) -> None:
    seed = 230 + list(MAMBA_SSM_CASES).index(case)
    public, original = tmp_path / "public", tmp_path / "original"
    fields, config = MAMBA_SSM_CASES[case]
    save(public, case.split(",")[0], seed, **fields)
    original.mkdir()
    write_original(public, original / "model.safetensors")
    (original / "config.json").write_text(json.dumps(config))

    row = compare(case, original, public, seed, scanned)

    record_row(row)
    model_parity.check(row)


def write_original(public: pathlib.Path, file: pathlib.Path, prefix: str = "") -> None:
    weights = load_file(public / "model.safetensors")
    renamed = {
        prefix + name.replace("embeddings.", "embedding."): weights[name] for name in weights
    }
    save_file(renamed, file)


def test_codestral_mamba_s_own_files_are_read(
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    scanned: list[np.ndarray],
) -> None:
    public, original = tmp_path / "public", tmp_path / "original"
    heads = {"num_heads": 2, "head_dim": 64, "n_groups": 2}
    save(public, "mamba2", 240, hidden_size=64, state_size=128, **heads)
    original.mkdir()
    write_original(public, original / "consolidated.safetensors", prefix="model.")
    params = {
        "dim": 64,
        "n_layers": 3,
        "vocab_size": 67,
        "n_groups": 2,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": False,
        "model_type": "mamba",
    }
    (original / "params.json").write_text(json.dumps(params))

    row = compare("mamba2, files of Codestral-Mamba", original, public, 240, scanned)

    record_row(row)
    model_parity.check(row)
