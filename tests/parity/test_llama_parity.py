"""llama against transformers: every branch of its configs, and SmolLM2."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import pytest
import transformers

RAGGED = [1, 2, 7, 33, 45]

# Fields that differ from BASE.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LONG_FACTORS = [1.0, 1.5, 2.0, 4.0]
CASES: dict[str, dict[str, Any]] = {
    "llama, every head its own keys": {"num_key_value_heads": None},
    "llama, grouped queries, tied": {"tie_word_embeddings": True},
    "llama, one key head": {"num_key_value_heads": 1, "num_attention_heads": 8},
    "llama, biases": {"attention_bias": True, "mlp_bias": True},
    "llama, head_dim 12 instead of 8": {"head_dim": 12, "rope_theta": 500.0},
    "llama, gelu, six layers, wide epsilon": {
        "hidden_act": "gelu_pytorch_tanh",
        "num_hidden_layers": 6,
        "rms_norm_eps": 1e-3,
    },
    "llama, rope linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    "llama, rope dynamic, within and beyond": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 3.0},
        "max_position_embeddings": 24,
    },
    "llama, rope llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 1000.0,
        },
        "head_dim": 16,
    },
    "llama, rope yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "head_dim": 16,
    },
    "llama, rope yarn, not truncated, mscale": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "truncate": False,
            "mscale": 1.2,
            "mscale_all_dim": 0.7,
            "beta_fast": 8.0,
            "beta_slow": 2.0,
        },
        "head_dim": 16,
    },
    "llama, rope yarn, attention_factor": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "attention_factor": 1.3,
            "original_max_position_embeddings": 32,
        },
    },
    "llama, rope longrope, short and long": {
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": LONG_FACTORS,
            "original_max_position_embeddings": 32,
        },
    },
    "llama, rope proportional": {
        "rope_parameters": {
            "rope_type": "proportional",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.5,
            "factor": 2.0,
        },
    },
}


def save_llama(folder: pathlib.Path, seed: int, **fields: Any) -> transformers.LlamaConfig:
    config = transformers.LlamaConfig(**{**BASE, **fields})
    model = transformers.LlamaForCausalLM(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder)
    return config


@pytest.mark.parametrize("case", CASES)
def test_llama_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = list(CASES).index(case)
    config = save_llama(tmp_path, seed, **CASES[case])
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed)

    row = model_parity.compare(case, tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


def test_old_spellings_of_rope_scaling_are_read(
    tmp_path: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    config = save_llama(tmp_path, seed=20)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    del fields["rope_parameters"]
    fields |= {"rope_theta": 300.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    fields |= {"head_dim": None, "num_key_value_heads": 2}
    file.write_text(json.dumps(fields))
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed=20)

    row = model_parity.compare("llama, config.json of transformers 4", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


def test_a_prompt_whose_heads_go_in_several_groups_equals_transformers(
    tmp_path: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    fields = {
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_hidden_layers": 1,
    }
    config = save_llama(tmp_path, seed=21, max_position_embeddings=4096, **fields)
    # 3 maps of 2300 x 2300 fit into a group, fewer than the 4 heads that share keys.
    prompts = model_parity.random_prompts([2300], config.vocab_size, seed=21)

    row = model_parity.compare("llama, heads in groups", tmp_path, prompts, tolerances=())

    record_row(row)
    model_parity.check(row)


def test_smollm2_equals_transformers(
    smollm2: pathlib.Path,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / file).symlink_to(smollm2 / file)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json")
    )
    texts = [
        "The tide comes in twice a day, and each time it takes a little of the sand castle away.",
        "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n",
    ]
    prompts = [tokenizer(text)["input_ids"] for text in texts] + [[17]]

    row = model_parity.compare("SmolLM2-135M-Instruct", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)
