"""Configurations of test_fla_parity.py: what flash-linear-attention's models are compared on."""

from __future__ import annotations

from typing import Any

# Both sides of fla's change of kernels at 64 positions.
RAGGED = [1, 2, 7, 33, 70]

# Fields that differ from BASE; the model type is the case's first word. `weights` is none of them,
# but how large the random weights are: products of features outgrow the tolerances.
BASE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
}
ATTENTION = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 5}
RWKV = {
    "head_dim": 8,
    "decay_low_rank_dim": 6,
    "gate_low_rank_dim": 10,
    "a_low_rank_dim": 5,
    "v_low_rank_dim": 3,
}
RWKV6 = {"proj_low_rank_dim": 4, "gate_low_rank_dim": 6}
CASES: dict[str, dict[str, Any]] = {
    "gla": {},
    "gla, short convolutions": {"use_short_conv": True},
    "gla, shared keys and values, swish features": {"num_kv_heads": 2, "feature_map": "swish"},
    "gla, shared keys and values, convolutions of 2 taps": {
        "num_heads": 8,
        "num_kv_heads": 2,
        "use_short_conv": True,
        "conv_size": 2,
    },
    "gla, one key head, no gate, gelu features": {
        "num_kv_heads": 1,
        "use_output_gate": False,
        "feature_map": "gelu",
    },
    "gla, wide keys and values, bounded decays, tied": {
        "expand_k": 1.0,
        "expand_v": 2.0,
        "clamp_min": -0.03,
        "tie_word_embeddings": True,
    },
    "gla, norms apart and without weights, squared relu features": {
        "fuse_norm": False,
        "fuse_swiglu": False,
        "elementwise_affine": False,
        "feature_map": "sqrelu",
    },
    "gla, one head, relu features, width by ratio": {
        "num_heads": 1,
        "feature_map": "relu",
        "intermediate_size": None,
        "hidden_ratio": None,
    },
    "gla, attention in the middle, window": {"attn": ATTENTION},
    "gla, two kinds of attention, sigmoid features": {
        "feature_map": "sigmoid",
        "attn": [
            {"layers": [0], "num_heads": 2, "qkv_bias": True},
            {"layers": [2], "num_heads": 4, "num_kv_heads": 1, "rope_theta": 500.0},
        ],
    },
    "retnet": {},
    "retnet, shared keys and values": {"num_kv_heads": 2},
    "retnet, one key head, no gate": {"num_kv_heads": 1, "use_output_gate": False},
    "retnet, narrow values, gelu features": {"expand_v": 1.0, "feature_map": "gelu"},
    "retnet, narrow keys, four heads, relu features": {
        "num_heads": 4,
        "expand_k": 0.75,
        "feature_map": "relu",
    },
    "retnet, norms apart, tied": {"fuse_norm": False, "tie_word_embeddings": True},
    "retnet, norms without weights, width by ratio": {
        "elementwise_affine": False,
        "intermediate_size": None,
    },
    "retnet, convolutions asked for in vain": {"use_short_conv": True, "num_heads": 1},
    "retnet, attention in the middle, window": {"attn": ATTENTION},
    "delta_net": {"num_heads": 4},
    "delta_net, no convolutions, gate": {
        "num_heads": 4,
        "use_short_conv": False,
        "use_gate": True,
    },
    "delta_net, relu, sums of 1": {"num_heads": 4, "qk_activation": "relu", "qk_norm": "sum"},
    "delta_net, elu, sums of 1, no convolutions": {
        "num_heads": 2,
        "qk_activation": "elu",
        "qk_norm": "sum",
        "use_short_conv": False,
    },
    "delta_net, no activation, negative eigenvalues": {
        "num_heads": 4,
        "qk_activation": "identity",
        "allow_neg_eigval": True,
    },
    "delta_net, overwrites whole, tied": {
        "num_heads": 4,
        "use_beta": False,
        "tie_word_embeddings": True,
    },
    "delta_net, reflections": {"num_heads": 4, "use_beta": False, "allow_neg_eigval": True},
    "delta_net, narrow keys, wide values, convolutions of 2 taps": {
        "num_heads": 2,
        "expand_k": 0.5,
        "expand_v": 1.5,
        "conv_size": 2,
        "use_gate": True,
        "fuse_norm": False,
    },
    # Heads of two numbers would leave little of their norms but signs.
    "delta_net, sixteen heads": {"hidden_size": 64},
    "delta_net, attention in the middle, window": {"num_heads": 4, "attn": ATTENTION},
    "gated_deltanet": {"num_heads": 4, "head_dim": 6},
    "gated_deltanet, shared queries and keys": {"num_heads": 2, "num_v_heads": 6, "head_dim": 8},
    "gated_deltanet, one key head, no gate": {
        "num_heads": 1,
        "num_v_heads": 4,
        "head_dim": 8,
        "use_gate": False,
    },
    "gated_deltanet, no convolutions": {"num_heads": 4, "head_dim": 6, "use_short_conv": False},
    "gated_deltanet, negative eigenvalues, sigmoid gate": {
        "num_heads": 4,
        "head_dim": 6,
        "allow_neg_eigval": True,
        "output_gate_activation": "sigmoid",
    },
    "gated_deltanet, narrow values, convolutions of 2 taps, tied": {
        "num_heads": 2,
        "head_dim": 10,
        "expand_v": 0.5,
        "conv_size": 2,
        "tie_word_embeddings": True,
    },
    "gated_deltanet, norms apart, width by ratio": {
        "num_heads": 3,
        "head_dim": 8,
        "fuse_norm": False,
        "fuse_swiglu": False,
        "intermediate_size": None,
        "hidden_ratio": 3,
    },
    "gated_deltanet, one head, wide epsilon": {"num_heads": 1, "head_dim": 16, "norm_eps": 1e-2},
    "gated_deltanet, attention in the middle, window": {
        "num_heads": 4,
        "head_dim": 6,
        "attn": ATTENTION,
    },
    "rwkv7": RWKV,
    "rwkv7, norms apart": {**RWKV, "fuse_norm": False},
    "rwkv7, no norm of the embeddings, norms without biases": {
        **RWKV,
        "norm_first": False,
        "norm_bias": False,
    },
    "rwkv7, two heads": {**RWKV, "head_dim": 16},
    "rwkv7, ranks by width": {
        "head_dim": 16,
        "decay_low_rank_dim": None,
        "gate_low_rank_dim": None,
        "a_low_rank_dim": None,
        "v_low_rank_dim": None,
    },
    "rwkv7, heads by number, tied": {
        **RWKV,
        "head_dim": None,
        "num_heads": 2,
        "tie_word_embeddings": True,
    },
    "rwkv7, width by ratio, swish": {
        **RWKV,
        "intermediate_size": None,
        "hidden_ratio": 3,
        "hidden_act": "swish",
    },
    "rwkv7, one head, wide epsilon": {**RWKV, "head_dim": 32, "norm_eps": 1e-3},
    "linear_attn": {"weights": 0.2},
    "linear_attn, shared keys and values, elu": {"num_kv_heads": 2, "feature_map": "elu"},
    "linear_attn, hedgehog, normalised": {"feature_map": "hedgehog", "norm_feature_map": True},
    "linear_attn, relu to rnn, queries and keys sum to 1": {
        "feature_map": "t2r",
        "norm_q": True,
        "norm_k": True,
    },
    "linear_attn, dpfp, one head, normalised": {
        "num_heads": 1,
        "feature_map": "dpfp",
        "norm_feature_map": True,
    },
    "linear_attn, identity, wide values, tied": {
        "feature_map": "identity",
        "expand_v": 2.0,
        "tie_word_embeddings": True,
    },
    "linear_attn, relu, norms without weights, width by ratio": {
        "feature_map": "relu",
        "expand_k": 0.5,
        "elementwise_affine": False,
        "intermediate_size": None,
    },
    "linear_attn, elu, normalised, one key head, norms apart": {
        "feature_map": "elu",
        "norm_feature_map": True,
        "num_kv_heads": 1,
        "fuse_norm": False,
    },
    "linear_attn, attention in the middle, window": {"weights": 0.2, "attn": ATTENTION},
    "hgrn2": {"expand_ratio": 8},
    "hgrn2, no lower bounds": {"expand_ratio": 8, "use_lower_bound": False},
    "hgrn2, short convolutions": {"expand_ratio": 8, "use_short_conv": True},
    "hgrn2, one head, convolutions of 2 taps": {
        "expand_ratio": 32,
        "use_short_conv": True,
        "conv_size": 2,
    },
    "hgrn2, heads by number, tied": {
        "expand_ratio": None,
        "num_heads": 2,
        "tie_word_embeddings": True,
    },
    "hgrn2, norms apart and without weights": {
        "expand_ratio": 4,
        "fuse_norm": False,
        "elementwise_affine": False,
    },
    "hgrn2, width by ratio, wide epsilon": {
        "expand_ratio": 16,
        "intermediate_size": None,
        "norm_eps": 1e-2,
    },
    "hgrn2, attention in the middle, window": {"expand_ratio": 8, "attn": ATTENTION},
    "gsa": {"num_slots": 6},
    "gsa, shared keys and values": {"num_slots": 6, "num_kv_heads": 2},
    "gsa, one key head, short convolutions": {
        "num_slots": 5,
        "num_kv_heads": 1,
        "use_short_conv": True,
    },
    "gsa, relu, quick gates": {"num_slots": 6, "feature_map": "relu", "gate_logit_normalizer": 1},
    "gsa, learned features, as many slots as dimensions": {
        "num_slots": None,
        "feature_map": "t2r",
    },
    "gsa, many slots, one head, tied": {
        "num_slots": 40,
        "num_heads": 1,
        "tie_word_embeddings": True,
    },
    "gsa, narrow keys, norms apart and without weights": {
        "num_slots": 6,
        "exapnd_k": 0.5,
        "fuse_norm": False,
        "elementwise_affine": False,
    },
    "gsa, attention in the middle, window": {"num_slots": 6, "attn": ATTENTION},
    "rwkv6": RWKV6,
    "rwkv6, wide keys": {**RWKV6, "expand_k": 1.0},
    "rwkv6, wide values, one head": {**RWKV6, "expand_v": 2.0, "num_heads": 1},
    "rwkv6, norms apart, tied": {**RWKV6, "fuse_norm": False, "tie_word_embeddings": True},
    "rwkv6, no norm of the embeddings": {**RWKV6, "norm_first": False},
    "rwkv6, norms without biases, two heads": {**RWKV6, "norm_bias": False, "num_heads": 2},
    "rwkv6, width by ratio, swish": {
        **RWKV6,
        "intermediate_size": None,
        "hidden_act": "swish",
    },
    "rwkv6, wide epsilon, ranks as by default": {"norm_eps": 1e-3},
}

# What training starts with: wide enough for samples of some thousands.
START_BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
}
STARTS: dict[str, dict[str, Any]] = {
    "gla": {"use_short_conv": True},
    "gla, tied, other range, attention": {
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
        "attn": {**ATTENTION, "layers": [0, 1, 2, 3], "qkv_bias": True},
    },
    "retnet": {},
    "delta_net": {"num_heads": 4},
    "gated_deltanet": {"num_heads": 32, "head_dim": 4},
    "linear_attn": {},
    "linear_attn, hedgehog": {"feature_map": "hedgehog"},
    "hgrn2": {"expand_ratio": 16},
    "gsa": {"feature_map": "t2r"},
    "rwkv6": {"proj_low_rank_dim": 8, "gate_low_rank_dim": 16},
    "rwkv7": {
        "head_dim": 16,
        "decay_low_rank_dim": 24,
        "gate_low_rank_dim": 80,
        "a_low_rank_dim": 16,
        "v_low_rank_dim": 8,
    },
    "rwkv7, tied, fewer tokens than channels": {
        "head_dim": 32,
        "vocab_size": 50,
        "tie_word_embeddings": True,
    },
    "rwkv7, heads by number": {"head_dim": None, "num_heads": 4},
}
