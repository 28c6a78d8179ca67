"""The families of server/models/layer_norm_decoder.h against transformers, beside GPT-2, which has
a file of its own: every branch of their configs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import pytest
import torch
import transformers
from transformers.models.falcon import modeling_falcon

RAGGED = [1, 2, 7, 33, 45]

# Fields that differ from BASE; the model type is the case's first word.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"num_attention_heads": 2, "intermediate_size": 48},
    "gpt_neox, one after the other, all of each head rotates": {
        "intermediate_size": 48,
        "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0},
    },
    "gpt_neox, no attention biases, linear rope": {
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "attention_bias": False,
        "rope_parameters": {
            "rope_type": "linear",
            "factor": 2.0,
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
    },
    "gpt_neox, tied": {
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "tie_word_embeddings": True,
        "hidden_act": "gelu_new",
    },
    "phi": {"intermediate_size": 48},
    "phi, norms of queries and keys, shared key heads": {
        "intermediate_size": 48,
        "qk_layernorm": True,
        "num_key_value_heads": 2,
    },
    "phi, a quarter of each head rotates": {
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25},
    },
    "falcon, one key head": {},
    "falcon, keys for every head": {"multi_query": False, "bias": True},
    "falcon, new layout": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    "falcon, new layout, one norm": {
        "new_decoder_architecture": True,
        "num_kv_heads": 1,
        "num_ln_in_parallel_attn": 1,
    },
    "falcon, one after the other": {"parallel_attn": False, "bias": True},
    "falcon, alibi": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "falcon, alibi, six heads": {"alibi": True, "num_attention_heads": 6, "hidden_size": 48},
    "falcon, wide feed-forward, untied": {"ffn_hidden_size": 80, "tie_word_embeddings": False},
}


def save(folder: pathlib.Path, case: str, seed: int) -> None:
    model_type = case.split(",")[0]
    config = transformers.AutoConfig.for_model(model_type, **{**BASE, **CASES[case]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder)


def compare(
    name: str, folder: pathlib.Path, seed: int, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed)
    row = model_parity.compare(name, folder, prompts)
    record_row(row)
    model_parity.check(row)


@pytest.fixture
def alibi_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager Falcon of transformers 5 adds its ALiBi twice, in the mask and in the attention; half
    of it twice is what its SDPA path, and the training code, add. Halving is exact."""
    whole = modeling_falcon.build_alibi_tensor

    def half(*args: Any, **kwargs: Any) -> torch.Tensor:
        return whole(*args, **kwargs) / 2

    monkeypatch.setattr(modeling_falcon, "build_alibi_tensor", half)


def test_the_sdpa_path_of_falcon_adds_alibi_once(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    save(tmp_path, "falcon, alibi", seed=150)
    prompt = model_parity.random_prompts([33], BASE["vocab_size"], 150)[0]
    sdpa = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    with torch.no_grad():
        expected = sdpa(torch.tensor([prompt]), use_cache=False).logits[0].numpy()

    request.getfixturevalue("alibi_once")
    logits, _ = model_parity.run_public(tmp_path, prompt)

    assert model_parity.relative_difference(logits, expected) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_layer_norm_decoder_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    alibi_once: None,
) -> None:
    seed = 100 + list(CASES).index(case)
    save(tmp_path, case, seed)

    compare(case, tmp_path, seed, record_row)


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 300.0}),
        ("phi", {"partial_rotary_factor": 0.25, "rope_theta": 300.0, "num_attention_heads": 2}),
        ("falcon, one key head", {"rope_theta": 300.0, "num_kv_heads": 4}),
    ],
)
def test_config_files_of_transformers_4_are_read(
    case: str,
    fields: dict[str, Any],
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    save(tmp_path, case, seed=140)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["rope_parameters"]
    if case == "phi":
        del config["num_key_value_heads"]
    file.write_text(json.dumps({**config, **fields}))

    compare(f"{case}, config.json of transformers 4", tmp_path, 140, record_row)
