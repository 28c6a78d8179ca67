"""The families of server/models/gated_decoder.h against transformers: every branch of their configs
that test_llama_parity.py does not have, and Gemma 3 270M."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import pytest
import transformers

RAGGED = [1, 2, 7, 33, 45]

# Fields that differ from BASE; the model type is the case's first word.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
LONG_FACTORS: dict[str, Any] = {
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 1.5, 2.0, 4.0],
}
LONG_ROPE = {"rope_type": "longrope", **LONG_FACTORS}
LAYER_TYPES = ["full_attention", "sliding_attention", "full_attention"]
CASES: dict[str, dict[str, Any]] = {
    "mistral, window of 5": {"sliding_window": 5},
    "mistral, no window, head_dim 12": {"sliding_window": None, "head_dim": 12},
    "mistral, window longer than any prompt": {"sliding_window": 4096},
    "mistral, window of 1": {"sliding_window": 1},
    "qwen2": {},
    "qwen2, one key head, tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen2, window in the last layer": {
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 2,
    },
    "qwen2, layer types": {
        "use_sliding_window": True,
        "sliding_window": 4,
        "layer_types": LAYER_TYPES,
    },
    "qwen2, yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen3, head_dim 12": {"head_dim": 12},
    "qwen3, biases, windows everywhere": {
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 0,
    },
    "gemma": {"head_dim": 12},
    "gemma, biases, one key head": {
        "head_dim": 8,
        "attention_bias": True,
        "num_key_value_heads": 1,
    },
    "gemma2": {"head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 9},
    "gemma2, tight caps": {
        "head_dim": 8,
        "sliding_window": 64,
        "query_pre_attn_scalar": 1,
        "attn_logit_softcapping": 12.0,
        "final_logit_softcapping": 2.0,
    },
    "gemma2, no caps, layer types": {
        "head_dim": 8,
        "sliding_window": 5,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "layer_types": LAYER_TYPES,
    },
    "gemma3_text": {
        "head_dim": 12,
        "sliding_window": 6,
        "query_pre_attn_scalar": 9,
        "num_hidden_layers": 7,
    },
    "gemma3_text, scaled rotary in the global layers": {
        "head_dim": 8,
        "sliding_window": 5,
        "sliding_window_pattern": 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "mixtral": {"num_local_experts": 4},
    "mixtral, window, all experts chosen": {
        "num_local_experts": 3,
        "num_experts_per_tok": 3,
        "sliding_window": 5,
    },
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "qwen3_moe, dense layers between, weights normalised, window": {
        "num_hidden_layers": 4,
        "head_dim": 12,
        "attention_bias": True,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 20,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        "norm_topk_prob": True,
        "use_sliding_window": True,
        "sliding_window": 6,
    },
    "phi3": {"num_key_value_heads": None},
    "phi3, window, grouped queries": {"sliding_window": 5},
    "phi3, half of each head rotates": {
        "num_attention_heads": 2,
        "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5},
    },
    "phi3, longrope, short and long": {
        "rope_parameters": LONG_ROPE,
        "original_max_position_embeddings": 32,
    },
    "phi3, longrope on half of each head": {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {**LONG_ROPE, "partial_rotary_factor": 0.5},
        "original_max_position_embeddings": 32,
    },
}


def save(folder: pathlib.Path, case: str, seed: int, **options: Any) -> None:
    model_type = case.split(",")[0]
    config = transformers.AutoConfig.for_model(model_type, **{**BASE, **CASES[case]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder, **options)


@pytest.mark.parametrize("case", CASES)
def test_gated_decoder_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = 40 + list(CASES).index(case)
    save(tmp_path, case, seed)
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed)

    row = model_parity.compare(case, tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe"])
def test_experts_may_be_stacked_in_one_tensor(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    save(tmp_path, case, seed=91, save_original_format=False)
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed=91)

    row = model_parity.compare(f"{case}, stacked experts", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


@pytest.mark.parametrize(
    ("case", "removed", "fields"),
    [
        (
            "gemma3_text, scaled rotary in the global layers",
            ["rope_parameters", "layer_types", "_sliding_window_pattern"],
            {
                "rope_theta": 500.0,
                "rope_local_base_freq": 100.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "sliding_window_pattern": 2,
            },
        ),
        (
            "phi3, longrope, short and long",
            ["rope_parameters"],
            {"rope_theta": 300.0, "rope_scaling": {"type": "longrope", **LONG_FACTORS}},
        ),
        (
            "phi3, longrope on half of each head",
            ["rope_parameters"],
            {
                "partial_rotary_factor": 0.5,
                "rope_scaling": {"type": "yarn", **LONG_FACTORS},
            },
        ),
    ],
)
def test_config_files_of_transformers_4_are_read(
    case: str,
    removed: list[str],
    fields: dict[str, Any],
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    save(tmp_path, case, seed=90)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for key in removed:
        config.pop(key, None)
    file.write_text(json.dumps({**config, **fields}))
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed=90)

    row = model_parity.compare(f"{case}, config.json of transformers 4", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


TEXTS = [
    "The tide comes in twice a day, and each time it takes a little of the sand castle away.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n",
]


def test_gemma3_270m_equals_transformers(
    gemma3: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(gemma3)
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS] + [[17]]

    row = model_parity.compare("Gemma 3 270M", gemma3, prompts)

    record_row(row)
    model_parity.check(row)


def test_gemma3_270m_beyond_its_window_equals_transformers(
    gemma3: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(gemma3)
    text = (model_parity.REPOSITORY / "tools" / "demo_text" / "long.txt").read_text()
    prompt = tokenizer(text + text)["input_ids"][:560]
    assert len(prompt) > 512

    row = model_parity.compare("Gemma 3 270M, beyond its window", gemma3, [prompt], tolerances=())

    record_row(row)
    model_parity.check(row)
