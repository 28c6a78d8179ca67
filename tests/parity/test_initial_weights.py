"""The weights that a model without a checkpoint starts with, against those of transformers: the
same tensors, and each drawn from the same distribution.

Two samples are compared by their spread, by a Kolmogorov-Smirnov test, and by the rows that are
zero. All seeds are fixed, so a test passes always or never; the limits are far enough out that
right code passes with nearly every seed (one comparison in 10 000 exceeds one of them by chance).
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
from typing import Any

import model_parity
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

CAPTURE = model_parity.CAPTURE_MODEL.with_name("capture_initial_weights")
MAX_DEVIATIONS = 4.5  # Of the standard error of a spread.
MAX_KOLMOGOROV = 2.3  # sqrt(n) times the distance, n counted as in the two-sample test.

# By model type: fields of the config. Wide enough for samples of some thousands.
SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ATTENTION: dict[str, Any] = {**SMALL, "intermediate_size": 96, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {**ATTENTION, "num_experts_per_tok": 2}
LATENT: dict[str, Any] = {
    **ATTENTION,
    "num_key_value_heads": None,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
GEMMA: dict[str, Any] = {**ATTENTION, "head_dim": 12}
MAMBA: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "state_size": 8,
    "num_hidden_layers": 6,
}
MAMBA2: dict[str, Any] = {**MAMBA, "num_heads": 32, "head_dim": 4, "n_groups": 2}
MAMBA_HYBRID: dict[str, Any] = {**ATTENTION, "mamba_n_heads": 16, "mamba_d_state": 8}
DELTA: dict[str, Any] = {
    **ATTENTION,
    "head_dim": 16,
    "full_attention_interval": 2,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 64,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA_HYBRID, "attn_layer_indices": [1]},
    "deepseek_v2": LATENT,
    "deepseek_v2, queries from the hidden state, biases, tied": {
        **LATENT,
        "q_lora_rank": None,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "deepseek_v3": {**LATENT, "n_group": 2, "topk_group": 1},
    "falcon": {**SMALL, "ffn_hidden_size": 96},
    "falcon, new layout, biases, untied": {
        **SMALL,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "bias": True,
        "tie_word_embeddings": False,
    },
    "falcon_h1": {**MAMBA_HYBRID, "mamba_d_ssm": 96, "mamba_rms_norm": True},
    "falcon_h1, tied, biases, no padding token": {
        **MAMBA_HYBRID,
        "mamba_d_ssm": 96,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mamba_proj_bias": True,
        "pad_token_id": None,
    },
    "falcon_mamba": MAMBA,
    "gemma": GEMMA,
    "gemma, padding elsewhere, biases": {**GEMMA, "pad_token_id": 7, "attention_bias": True},
    "gemma2": {**GEMMA, "sliding_window": 6},
    "gemma3_text": {**GEMMA, "sliding_window": 6, "tie_word_embeddings": False},
    "gpt2": {**SMALL, "n_positions": 100},
    "gpt2, untied, other range": {
        **SMALL,
        "n_positions": 100,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    },
    "gpt_neox": {**SMALL, "intermediate_size": 96},
    "gpt_neox, tied, no attention biases": {
        **SMALL,
        "intermediate_size": 96,
        "tie_word_embeddings": True,
        "attention_bias": False,
    },
    "granitemoehybrid": {
        **MAMBA_HYBRID,
        "num_local_experts": 3,
        "shared_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "jamba": {
        **EXPERTS,
        "num_experts": 3,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
    },
    "lfm2": {**ATTENTION, "full_attn_idxs": [1], "conv_bias": True},
    "lfm2, untied, padding elsewhere": {
        **ATTENTION,
        "full_attn_idxs": [1],
        "tie_word_embeddings": False,
        "pad_token_id": 7,
    },
    "llama": ATTENTION,
    "llama, tied, biases, a padding token, other range": {
        **ATTENTION,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
        "pad_token_id": 5,
        "initializer_range": 0.1,
    },
    "llama, the last token pads": {**ATTENTION, "pad_token_id": -1},
    "mamba": MAMBA,
    "mamba, constant time steps, biases, untied, rescaled": {
        **MAMBA,
        "time_step_init_scheme": "constant",
        "time_step_scale": 2.0,
        "use_bias": True,
        "tie_word_embeddings": False,
        "rescale_prenorm_residual": True,
    },
    "mamba, other time steps": {
        **MAMBA,
        "time_step_rank": 9,
        "time_step_min": 0.01,
        "time_step_max": 1.0,
        "time_step_floor": 0.05,
        "initializer_range": 0.02,
        "use_conv_bias": False,
    },
    "mamba2": MAMBA2,
    "mamba2, tied, biases, rescaled, other time steps": {
        **MAMBA2,
        "tie_word_embeddings": True,
        "use_bias": True,
        "rescale_prenorm_residual": True,
        "time_step_min": 0.01,
        "time_step_max": 0.5,
        "time_step_floor": 0.03,
    },
    "mistral": ATTENTION,
    "mixtral": {**EXPERTS, "num_local_experts": 3},
    "phi": {**ATTENTION, "qk_layernorm": True},
    "phi3": {**ATTENTION, "vocab_size": 32064, "hidden_size": 16},
    "phi3, no padding token": {**ATTENTION, "pad_token_id": None},
    "qwen2": ATTENTION,
    "qwen3": {**ATTENTION, "head_dim": 12},
    "qwen3_moe": {
        **EXPERTS,
        "num_experts": 3,
        "moe_intermediate_size": 24,
        "mlp_only_layers": [1],
    },
    "qwen3_next": {
        **EXPERTS,
        **DELTA,
        "num_experts": 3,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 20,
    },
    "qwen3_5_text": DELTA,
}

# Model types that are served and whose start is not compared with a public class: the testbed's is
# with its twin's in test_ess_testbed_parity.py, S4D's with its paper in test_s4d_parity.py.
NOT_COMPARED: set[str] = {"ess_testbed", "s4d"}


@dataclasses.dataclass
class Weights:
    """By the checkpoint's names without the base prefix."""

    ours: dict[str, np.ndarray]
    public: dict[str, np.ndarray]


def capture(folder: pathlib.Path, seed: int) -> dict[str, np.ndarray]:
    out = folder / f"ours.{seed}.safetensors"
    command = [str(CAPTURE), str(folder), str(seed), str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(out)


def public_weights(
    config: transformers.PretrainedConfig, folder: pathlib.Path, seed: int
) -> dict[str, np.ndarray]:
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    prefix = model.base_model_prefix + "."
    return {
        name.removeprefix(prefix): values
        for name, values in load_file(folder / "model.safetensors").items()
    }


def pooled(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of all layers and experts in one, whose first axis they are."""
    groups: dict[str, list[np.ndarray]] = {}
    for name, values in weights.items():
        pool = re.sub(r"\b(layers|h|experts)\.\d+\.", r"\1.*.", name)
        groups.setdefault(pool, []).append(values)
    return {name: np.stack(group) for name, group in groups.items()}


def spread(sample: np.ndarray) -> tuple[float, float]:
    """The logarithm of the root mean square, and its variance."""
    squares = np.square(sample.astype(np.float64))
    mean = squares.mean()
    return 0.5 * np.log(mean), 0.25 * squares.var() / mean**2 / sample.size


def kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sample statistic in units in which it does not depend on the sizes."""
    both = np.sort(np.concatenate([a, b]))
    share_a = np.searchsorted(np.sort(a), both, side="right") / a.size
    share_b = np.searchsorted(np.sort(b), both, side="right") / b.size
    return float(np.abs(share_a - share_b).max() * np.sqrt(a.size * b.size / (a.size + b.size)))


def check_same_distribution(name: str, ours: np.ndarray, public: np.ndarray) -> None:
    assert ours.shape == public.shape, name
    counts = name.endswith("A_log") and "linear_attn" not in name
    if np.ptp(public) == 0 or counts:
        np.testing.assert_allclose(ours, public, rtol=1e-6, err_msg=name)
        return
    zero_rows = (public == 0).all(-1)
    assert ((ours == 0).all(-1) == zero_rows).all(), name
    a, b = ours[~zero_rows].ravel(), public[~zero_rows].ravel()
    (log_a, variance_a), (log_b, variance_b) = spread(a), spread(b)
    deviations = abs(log_a - log_b) / np.sqrt(variance_a + variance_b)
    assert deviations < MAX_DEVIATIONS, (name, np.exp(log_a), np.exp(log_b))
    assert kolmogorov(a, b) < MAX_KOLMOGOROV, name


@pytest.fixture
def weights(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Weights:
    case: str = request.param
    config = transformers.AutoConfig.for_model(case.split(",")[0], **CASES[case])
    seed = list(CASES).index(case)
    config.save_pretrained(tmp_path)
    ours = capture(tmp_path, seed)
    return Weights(ours, public_weights(config, tmp_path / "public", seed))


@pytest.mark.parametrize("weights", CASES, indirect=True)
def test_weights_start_as_those_of_transformers(weights: Weights) -> None:
    assert weights.ours.keys() == weights.public.keys()
    ours, public = pooled(weights.ours), pooled(weights.public)
    for name, values in public.items():
        check_same_distribution(name, ours[name], values)


def test_every_architecture_has_a_case() -> None:
    source = (model_parity.REPOSITORY / "server" / "models").glob("*.cc")
    served = {
        model_type
        for file in source
        for model_type in re.findall(
            r'(?:model_type = |GatedArchitecture<\w+>\(\s*)"(\w+)"', file.read_text()
        )
    }
    assert served == {case.split(",")[0] for case in CASES} | NOT_COMPARED


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path: pathlib.Path) -> None:
    transformers.MambaConfig(**MAMBA).save_pretrained(tmp_path)
    first, again, other = capture(tmp_path, 1), capture(tmp_path, 1), capture(tmp_path, 2)
    for name, values in first.items():
        assert (values == again[name]).all(), name
        drawn = np.ptp(values) > 0 and not name.endswith("A_log")
        assert (values != other[name]).any() == drawn, name


def test_layers_and_matrices_of_one_shape_are_independent(tmp_path: pathlib.Path) -> None:
    transformers.LlamaConfig(**ATTENTION).save_pretrained(tmp_path)
    drawn = [values for values in capture(tmp_path, 3).values() if values.shape == (96, 64)]
    assert len(drawn) == 8
    correlations = np.corrcoef([values.ravel() for values in drawn]) - np.eye(len(drawn))
    assert np.abs(correlations).max() < MAX_DEVIATIONS / np.sqrt(96 * 64)


def test_the_comparison_sees_other_distributions() -> None:
    generator = np.random.default_rng(0)
    public = generator.normal(0, 0.02, (4, 64, 64))
    check_same_distribution("same", generator.normal(0, 0.02, public.shape), public)
    others = {
        "wider": generator.normal(0, 0.021, public.shape),
        "uniform": generator.uniform(-0.02 * 3**0.5, 0.02 * 3**0.5, public.shape),
        "shifted": generator.normal(0.002, 0.02, public.shape),
        "clipped": np.clip(generator.normal(0, 0.02, public.shape), -0.03, 0.03),
        "constant": np.full(public.shape, 0.02),
    }
    padded = generator.normal(0, 0.02, public.shape)
    padded[:, 3] = 0
    for name, values in {**others, "padded": padded}.items():
        with pytest.raises(AssertionError):
            check_same_distribution(name, values, public)
