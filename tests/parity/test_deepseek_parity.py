"""deepseek_v2 against transformers: every branch of their configs."""

from __future__ import annotations

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
    "moe_intermediate_size": 20,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": None,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 11,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
GROUPS: dict[str, Any] = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2}
LIMITED: dict[str, Any] = {**GROUPS, "topk_method": "group_limited_greedy"}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {},
    "deepseek_v2, queries from the hidden state, one shared expert": {
        "q_lora_rank": None,
        "n_shared_experts": 1,
    },
    "deepseek_v2, experts of two groups of four, scaled": {
        **LIMITED,
        "num_experts_per_tok": 3,
        "routed_scaling_factor": 2.5,
    },
    "deepseek_v2, biases, one group, gelu": {
        **LIMITED,
        "topk_group": 1,
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu",
    },
    "deepseek_v2, biases, queries from the hidden state, values of 3": {
        "q_lora_rank": None,
        "attention_bias": True,
        "v_head_dim": 3,
    },
    "deepseek_v2, values of 24, all experts chosen": {
        "v_head_dim": 24,
        "num_experts_per_tok": 6,
    },
    "deepseek_v2, experts in every layer, yarn, both mscales": {
        "first_k_dense_replace": 0,
        "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek_v2, yarn, different mscales": {
        "rope_parameters": {**YARN, "mscale": 1.2, "mscale_all_dim": 0.6, "rope_theta": 500.0},
    },
    "deepseek_v2, yarn, one mscale": {"rope_parameters": {**YARN, "mscale": 1.3}},
    "deepseek_v2, rope linear, all_dim": {
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "mscale_all_dim": 1.0},
    },
    "deepseek_v2, rope dynamic, beyond": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 3.0},
        "max_position_embeddings": 24,
    },
    "deepseek_v2, no experts, tied, wide epsilon": {
        "first_k_dense_replace": 3,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-2,
    },
}


def save(folder: pathlib.Path, case: str, seed: int, **options: Any) -> None:
    config = transformers.AutoConfig.for_model(case.split(",")[0], **{**BASE, **CASES[case]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    model.save_pretrained(folder, **options)


@pytest.mark.parametrize("case", CASES)
def test_deepseek_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    seed = 500 + list(CASES).index(case)
    save(tmp_path, case, seed)
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed)

    row = model_parity.compare(case, tmp_path, prompts)

    record_row(row)
    model_parity.check(row)


@pytest.mark.parametrize("case", ["deepseek_v2"])
def test_experts_may_be_stacked_in_one_tensor(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
) -> None:
    save(tmp_path, case, seed=551, save_original_format=False)
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed=551)

    row = model_parity.compare(f"{case}, stacked experts", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)
