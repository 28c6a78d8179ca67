"""deepseek_v2 and deepseek_v3 against transformers: every branch of their configs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import model_parity
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

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
V3: dict[str, Any] = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1}
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
    "deepseek_v3": V3,
    "deepseek_v3, queries from the hidden state, pairs half apart": {
        **V3,
        "q_lora_rank": None,
        "rope_interleave": False,
    },
    "deepseek_v3, two groups of four, not normalised": {
        **GROUPS,
        "num_experts_per_tok": 4,
        "norm_topk_prob": False,
        "routed_scaling_factor": 0.7,
    },
    "deepseek_v3, one group, two shared experts": {
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 2,
    },
    "deepseek_v3, biases, gelu, values of 3": {
        **V3,
        "attention_bias": True,
        "hidden_act": "gelu_pytorch_tanh",
        "v_head_dim": 3,
    },
    "deepseek_v3, values of 24, every expert of the chosen groups": {
        **GROUPS,
        "v_head_dim": 24,
        "num_experts_per_tok": 4,
    },
    "deepseek_v3, experts in every layer, yarn, both mscales": {
        **V3,
        "first_k_dense_replace": 0,
        "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "deepseek_v3, pairs half apart, yarn, different mscales": {
        **V3,
        "rope_interleave": False,
        "rope_parameters": {**YARN, "mscale": 0.5, "mscale_all_dim": 1.1, "beta_fast": 8.0},
    },
    "deepseek_v3, rope llama3, two heads of 16 that rotate": {
        **V3,
        "num_attention_heads": 2,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 4,
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 1000.0,
        },
    },
    "deepseek_v3, no experts, tied": {
        **V3,
        "first_k_dense_replace": 3,
        "tie_word_embeddings": True,
    },
}


def save(folder: pathlib.Path, case: str, seed: int, **options: Any) -> None:
    config = transformers.AutoConfig.for_model(case.split(",")[0], **{**BASE, **CASES[case]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
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


@pytest.mark.parametrize("case", ["deepseek_v2", "deepseek_v3"])
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


def test_layers_that_predict_later_tokens_are_left_out(
    tmp_path: pathlib.Path, record_row: Callable[[model_parity.ParityRow], None]
) -> None:
    save(tmp_path, "deepseek_v3", seed=550)
    file = tmp_path / "model.safetensors"
    further = {"model.layers.3.eh_proj.weight": torch.ones(32, 64)}
    save_file({**load_file(file), **further}, file, metadata={"format": "pt"})
    prompts = model_parity.random_prompts(RAGGED, BASE["vocab_size"], seed=550)

    row = model_parity.compare("deepseek_v3, a further layer in the file", tmp_path, prompts)

    record_row(row)
    model_parity.check(row)
