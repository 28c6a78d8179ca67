"""Configurations of the models whose layers differ in what mixes: every branch of their configs."""

from __future__ import annotations

from typing import Any

ATTENTION: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 80,
    "pad_token_id": None,
}

LFM2_BASE = {**ATTENTION, "hidden_size": 32, "num_hidden_layers": 3, "block_multiple_of": 4}
LFM2_MIXED = ["conv", "full_attention", "conv"]
LFM2_CASES: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": LFM2_MIXED},
    "lfm2, attention alone": {},
    "lfm2, layers by index, biases, untied": {
        "full_attn_idxs": [0, 2],
        "conv_bias": True,
        "tie_word_embeddings": False,
    },
    "lfm2, five taps, one key head": {
        "layer_types": LFM2_MIXED,
        "conv_L_cache": 5,
        "num_key_value_heads": 1,
    },
    "lfm2, one tap": {"layer_types": LFM2_MIXED, "conv_L_cache": 1},
    "lfm2, more taps than most prompts have tokens": {
        "layer_types": LFM2_MIXED,
        "conv_L_cache": 40,
    },
    "lfm2, width as given": {"layer_types": LFM2_MIXED, "block_auto_adjust_ff_dim": False},
    "lfm2, width multiplied": {
        "layer_types": LFM2_MIXED,
        "block_ffn_dim_multiplier": 1.3,
        "block_multiple_of": 8,
    },
    "lfm2, scaled rotary, old names of the width and the tie": {
        "layer_types": LFM2_MIXED,
        "block_ff_dim": 40,
        "tie_embedding": False,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
    },
}

FALCON_H1_BASE = {
    **ATTENTION,
    "num_hidden_layers": 2,
    "mamba_d_ssm": 24,
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
}
FALCON_H1_CASES: dict[str, dict[str, Any]] = {
    "falcon_h1": {},
    "falcon_h1, two groups, normalised before the gate": {
        "mamba_n_groups": 2,
        "mamba_rms_norm": True,
    },
    "falcon_h1, two groups, normalised after the gate": {
        "mamba_n_groups": 2,
        "mamba_rms_norm": True,
        "mamba_norm_before_gate": False,
    },
    "falcon_h1, width by expansion, a group for every head": {
        "mamba_d_ssm": None,
        "mamba_expand": 3,
        "mamba_d_head": 12,
        "mamba_n_groups": 4,
    },
    "falcon_h1, multipliers": {
        "embedding_multiplier": 1.7,
        "lm_head_multiplier": 0.3,
        "key_multiplier": 0.6,
        "attention_in_multiplier": 1.2,
        "attention_out_multiplier": 0.8,
        "ssm_in_multiplier": 0.7,
        "ssm_out_multiplier": 1.4,
        "ssm_multipliers": [0.5, 1.5, 0.7, 1.3, 0.9],
        "mlp_multipliers": [1.6, 0.4],
    },
    "falcon_h1, biases": {
        "attention_bias": True,
        "mlp_bias": True,
        "mamba_proj_bias": True,
        "projectors_bias": True,
        "mamba_conv_bias": False,
    },
    "falcon_h1, bounded time steps, chunks of 16, tied, one key head": {
        "time_step_limit": (0.1, 0.9),
        "mamba_chunk_size": 16,
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
    },
    "falcon_h1, every head its own keys, scaled rotary, two taps, gelu": {
        "num_key_value_heads": None,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
        "mamba_d_conv": 2,
        "hidden_act": "gelu",
    },
}

QWEN3_NEXT_BASE = {
    **ATTENTION,
    "num_hidden_layers": 3,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 10,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
    "full_attention_interval": 2,
}
QWEN3_NEXT_CASES: dict[str, dict[str, Any]] = {
    "qwen3_next": {},
    "qwen3_next, layer types, weights not normalised": {
        "layer_types": ["full_attention", "linear_attention", "linear_attention"],
        "norm_topk_prob": False,
    },
    "qwen3_next, a key head for every value head": {"linear_num_key_heads": 4},
    "qwen3_next, one key head each, tied": {
        "linear_num_key_heads": 1,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    "qwen3_next, dense layers between, biases of attention": {
        "num_hidden_layers": 4,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        "attention_bias": True,
    },
    "qwen3_next, half of each head rotates, all experts chosen": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
        "num_experts_per_tok": 4,
    },
    "qwen3_next, two taps, gelu, wide epsilon": {
        "linear_conv_kernel_dim": 2,
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-3,
    },
    "qwen3_next, no attention": {"num_hidden_layers": 3, "full_attention_interval": 4},
    "qwen3_next, scaled rotary": {
        "rope_parameters": {
            "rope_type": "linear",
            "factor": 4.0,
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.75,
        },
    },
}

JAMBA_BASE = {
    **ATTENTION,
    "num_hidden_layers": 4,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 4,
    "mamba_d_state": 8,
    "mamba_dt_rank": 3,
}
JAMBA_CASES: dict[str, dict[str, Any]] = {
    "jamba": {},
    "jamba, default layers": {
        "num_hidden_layers": 6,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
    },
    "jamba, one expert": {"num_experts": 1, "num_experts_per_tok": 1},
    "jamba, experts in every layer, all of them chosen": {
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "num_experts": 3,
        "num_experts_per_tok": 3,
    },
    "jamba, biases of projections, none of the convolution": {
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
    },
    "jamba, two taps, wider, rank 5": {
        "mamba_d_conv": 2,
        "mamba_expand": 3,
        "mamba_dt_rank": 5,
    },
    "jamba, tied, one key head, gelu": {
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "jamba, no attention, automatic rank": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "mamba_dt_rank": "auto",
    },
    "jamba, attention alone, wide epsilon": {
        "attn_layer_period": 1,
        "attn_layer_offset": 0,
        "rms_norm_eps": 1e-3,
    },
}

BAMBA_BASE = {
    **ATTENTION,
    "num_hidden_layers": 3,
    "attn_layer_indices": [1],
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
}
BAMBA_CASES: dict[str, dict[str, Any]] = {
    "bamba": {},
    "bamba, two groups": {"mamba_n_groups": 2},
    "bamba, a group for every head, wider": {"mamba_n_groups": 4, "mamba_expand": 3},
    "bamba, biases": {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True},
    "bamba, no attention, no bias of the convolution": {
        "attn_layer_indices": None,
        "mamba_conv_bias": False,
    },
    "bamba, attention first and last, one key head": {
        "attn_layer_indices": [0, 2],
        "num_key_value_heads": 1,
    },
    "bamba, bounded time steps, chunks of 16, tied": {
        "time_step_limit": (0.1, 0.9),
        "mamba_chunk_size": 16,
        "tie_word_embeddings": True,
    },
    "bamba, every head its own keys, two taps, gelu": {
        "num_key_value_heads": None,
        "mamba_d_conv": 2,
        "hidden_act": "gelu",
    },
}

GRANITE_BASE = {
    **ATTENTION,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_local_experts": 4,
    "shared_intermediate_size": 20,
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
    "residual_multiplier": 0.7,
}
GRANITE_CASES: dict[str, dict[str, Any]] = {
    "granitemoehybrid": {},
    "granitemoehybrid, rotary, two groups": {
        "position_embedding_type": "rope",
        "mamba_n_groups": 2,
    },
    "granitemoehybrid, dense, no positions": {
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "position_embedding_type": "nope",
    },
    "granitemoehybrid, multipliers": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.4,
        "residual_multiplier": 1.3,
        "logits_scaling": 4.0,
    },
    "granitemoehybrid, biases, none of the convolution": {
        "attention_bias": True,
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
    },
    "granitemoehybrid, no attention, all experts chosen": {
        "layer_types": None,
        "num_experts_per_tok": 4,
    },
    "granitemoehybrid, tied, every head its own keys, gelu": {
        "tie_word_embeddings": True,
        "num_key_value_heads": None,
        "hidden_act": "gelu",
    },
    "granitemoehybrid, bounded time steps, chunks of 16, scaled rotary": {
        "time_step_limit": (0.1, 0.9),
        "mamba_chunk_size": 16,
        "position_embedding_type": "rope",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
    },
}

QWEN3_5_BASE = {
    **ATTENTION,
    "num_hidden_layers": 3,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 10,
    "full_attention_interval": 2,
}
QWEN3_5_CASES: dict[str, dict[str, Any]] = {
    "qwen3_5_text": {},
    "qwen3_5_text, layer types": {
        "layer_types": ["full_attention", "linear_attention", "linear_attention"],
    },
    "qwen3_5_text, a key head for every value head": {"linear_num_key_heads": 4},
    "qwen3_5_text, one key head each, tied": {
        "linear_num_key_heads": 1,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    "qwen3_5_text, biases of attention": {"attention_bias": True},
    "qwen3_5_text, three quarters of each head rotate, in sections": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.75,
            "mrope_section": [1, 1, 1],
        },
    },
    "qwen3_5_text, two taps, gelu, wide epsilon": {
        "linear_conv_kernel_dim": 2,
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-3,
    },
    "qwen3_5_text, no attention": {"full_attention_interval": 4},
}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    case: (base, fields)
    for base, cases in (
        (LFM2_BASE, LFM2_CASES),
        (FALCON_H1_BASE, FALCON_H1_CASES),
        (QWEN3_NEXT_BASE, QWEN3_NEXT_CASES),
        (JAMBA_BASE, JAMBA_CASES),
        (BAMBA_BASE, BAMBA_CASES),
        (QWEN3_5_BASE, QWEN3_5_CASES),
        (GRANITE_BASE, GRANITE_CASES),
    )
    for case, fields in cases.items()
}
