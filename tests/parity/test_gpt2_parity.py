"""gpt2 against transformers: every branch of its configs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

RAGGED = [1, 2, 7, 33, 45]
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 48,
}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt2, scaled by the inverse layer index": {"scale_attn_by_inverse_layer_idx": True},
    "gpt2, attention not scaled": {"scale_attn_weights": False},
    "gpt2, n_inner 40": {"n_inner": 40},
    "gpt2, untied, relu": {"tie_word_embeddings": False, "activation_function": "relu"},
    "gpt2, one head, wide epsilon": {"n_head": 1, "layer_norm_epsilon": 1e-3},
    "gpt2, upcast attention, quick_gelu": {
        "reorder_and_upcast_attn": True,
        "activation_function": "quick_gelu",
    },
}


def save_gpt2(folder: pathlib.Path, seed: int, **fields: Any) -> transformers.GPT2Config:
    config = transformers.GPT2Config(
        **{**BASE, **fields},
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder)
    return config


@pytest.mark.parametrize("case", CASES)
def test_gpt2_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = 50 + list(CASES).index(case)
    config = save_gpt2(tmp_path, seed, **CASES[case])
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed)

    row = model_parity.compare(case, tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


def test_the_canonical_checkpoint_layout_is_read(
    tmp_path: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    """No prefix, causal buffers among the weights, the other names of the config's keys."""
    config = save_gpt2(tmp_path, seed=60)
    weights = tmp_path / "model.safetensors"
    tensors = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(weights).items()
    }
    for layer in range(config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor([-1e4])
    save_file(tensors, weights, metadata={"format": "pt"})
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    for key, alias in {"n_embd": "hidden_size", "n_layer": "num_hidden_layers"}.items():
        fields[alias] = fields.pop(key)
    file.write_text(json.dumps(fields))
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed=60)

    row = model_parity.compare("gpt2, canonical layout", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)
