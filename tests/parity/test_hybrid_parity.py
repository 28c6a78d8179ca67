"""Models whose layers differ in what mixes, against transformers. Attention shows its maps; the
operators of the other mixers are formed in float64 from what goes into them, and checked against
what comes out of them."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import model_parity
import numpy as np
import public_operators
import pytest
import torch
import transformers

RAGGED = [1, 2, 7, 33, 70]


def import_modeling(model_type: str) -> Any:
    """The public modelling code, which would take flash-linear-attention's kernels if it saw it;
    those need a GPU."""
    absent = object()
    seen = sys.modules.get("fla", absent)
    sys.modules["fla"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    finally:
        del sys.modules["fla"]
        if seen is not absent:
            sys.modules["fla"] = seen  # type: ignore[assignment]


modeling_lfm2 = import_modeling("lfm2")
modeling_falcon_h1 = import_modeling("falcon_h1")
modeling_bamba = import_modeling("bamba")
modeling_granite = import_modeling("granitemoehybrid")
modeling_qwen3_next = import_modeling("qwen3_next")
modeling_qwen3_5 = import_modeling("qwen3_5")
modeling_jamba = import_modeling("jamba")

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
    "granitemoehybrid, dense": {"num_local_experts": 0},
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


def kinds(config: Any) -> Iterator[tuple[str, str]]:
    """(name, kind) of every mixing operator, in the order of computation."""
    if config.model_type == "falcon_h1":
        for layer in range(config.num_hidden_layers):
            yield f"{layer:03}.attention", "attention"
            yield f"{layer:03}.mamba", "other"
        return
    types = config.layers_block_type if config.model_type == "jamba" else config.layer_types
    for layer, layer_type in enumerate(types):
        attends = layer_type in ("attention", "full_attention")
        yield f"{layer:03}", "attention" if attends else "other"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The operators of the public mixers other than attention, in the order in which they run."""
    operators: list[np.ndarray] = []

    def record(
        operator: np.ndarray, inputs: torch.Tensor, outputs: torch.Tensor, gate: Any = 1.0
    ) -> None:
        """[H, L, L], from [L, H, d] to [L, H, d], which a gate multiplies."""
        expected = np.einsum("hij,jhd->ihd", operator, inputs.double().numpy()) * np.asarray(gate)
        close = np.abs(expected - outputs.numpy()).max() / np.abs(expected).max()
        assert close < 1e-4, close
        operators.append(operator)

    def plain(module: Any, name: str) -> Any:
        """A function of the public module, which is PyTorch's and no kernel's."""
        function = getattr(module, name)
        assert not inspect.getclosurevars(function).nonlocals["is_new_implementation"]
        return function

    def record_convolutions() -> None:
        convolution = plain(modeling_lfm2, "causal_conv1d_fn")
        forward = modeling_lfm2.Lfm2ShortConv.forward

        def recording(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
            gate_in, gate_out, x = self.in_proj(hidden_states)[0].chunk(3, dim=-1)
            taps = self.conv.weight.squeeze(1)
            operator = public_operators.gated_convolution_operators(gate_out, taps, gate_in)
            mixed = convolution((gate_in * x).T[None], taps)[0].T * gate_out
            record(operator, x[:, :, None], mixed[:, :, None])
            return forward(self, hidden_states, **kwargs)

        monkeypatch.setattr(modeling_lfm2.Lfm2ShortConv, "forward", recording)

    def record_heads(module: Any) -> None:
        scan = plain(module, "mamba2_chunk_scan")

        def recording(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
            delta = torch.nn.functional.softplus(dt + kwargs["dt_bias"]).clamp(*kwargs["dt_limit"])
            operator = public_operators.head_operators(delta[0], A, B[0], C[0])
            y = scan(x, dt, A, B, C, **kwargs)
            record(operator, x[0], y[0] - kwargs["D"][:, None] * x[0])
            return y

        monkeypatch.setattr(module, "mamba2_chunk_scan", recording)

    def record_deltas(module: Any) -> None:
        rule = plain(module, "torch_chunk_gated_delta_rule")

        def recording(query: Any, key: Any, value: Any, g: Any, beta: Any, **kwargs: Any) -> Any:
            assert kwargs["use_qk_l2norm_in_kernel"]
            shared = value.shape[2] // key.shape[2]
            unit = [module.l2norm(x[0]).repeat_interleave(shared, dim=1) for x in (query, key)]
            scale = query.shape[-1] ** -0.5
            operator = public_operators.delta_operators(scale * unit[0], unit[1], g[0], beta[0])
            y, state = rule(query, key, value, g=g, beta=beta, **kwargs)
            record(operator, value[0], y[0])
            return y, state

        monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", recording)

    def record_channels() -> None:
        scan = plain(modeling_jamba, "mamba_selective_scan")

        def recording(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
            delta = torch.nn.functional.softplus(dt + kwargs["delta_bias"][:, None])
            operator = public_operators.channel_operators(delta[0], A, B[0], C[0])
            y = scan(x, dt, A, B, C, **kwargs)
            gate = torch.nn.functional.silu(kwargs["z"][0])
            mixed = y[0] - gate * kwargs["D"][:, None] * x[0]
            inputs, outputs, gates = (z.T[:, :, None] for z in (x[0], mixed, gate))
            record(operator, inputs, outputs, gates)
            return y

        monkeypatch.setattr(modeling_jamba, "mamba_selective_scan", recording)

    record_convolutions()
    for module in (modeling_falcon_h1, modeling_bamba, modeling_granite):
        record_heads(module)
    for module in (modeling_qwen3_next, modeling_qwen3_5):
        record_deltas(module)
    record_channels()
    return operators


def remember_longer(model: torch.nn.Module) -> None:
    """A delta rule that forgets at once reads single products q . k. Where one is near 0, the norm
    after it makes rounding as large as what is there, in both implementations."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("linear_attn.A_log"):
                parameter.sub_(2)


@pytest.mark.parametrize("case", CASES)
def test_hybrid_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    recorded: list[np.ndarray],
) -> None:
    seed = 600 + list(CASES).index(case)
    base, fields = CASES[case]
    config = transformers.AutoConfig.for_model(case.split(",")[0], **{**base, **fields})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    remember_longer(model)
    model.save_pretrained(tmp_path)
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed)

    def run(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        recorded.clear()
        logits, attention = model_parity.run_public(folder, prompt)
        queues = {"attention": iter(attention), "other": iter(recorded)}
        operators = {name: next(queues[kind]) for name, kind in kinds(config)}
        assert len(operators) == len(attention) + len(recorded)
        return logits, operators

    row = model_parity.compare(case, tmp_path, prompts, run=run)

    record_row(row)
    model_parity.check(row)
