"""Runs flash-linear-attention's models on the CPU, in a process of its own.

Its layers run as they are, with its plain torch functions in place of its kernels: the naive form
of each recurrence, and the reference form of norms, rotations and fused updates. The naive forms
are also asked for T, by unit vectors in place of values. A kernel that is started all the same is
an error.

Of its own, because some of transformers' models look for fla and fail where it finds no GPU. Speaks
JSON, a request and an answer per line:
    {"start": FOLDER, "config": {...}, "seed": N} writes a checkpoint of what training starts with
    {"make": FOLDER, "config": {...}, "seed": N, "scale": X} writes a random checkpoint
    {"run": FOLDER, "prompt": [...], "out": FILE} writes `logits` [L, V] and `operator.N` [H, L, L]
The answer is {}, or {"error": TRACEBACK}.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import fla  # noqa: F401  (registers its models)
import fla.layers as layers
import model_parity
import torch
import torch.nn.functional as F
import transformers
import triton
from fla.models.rwkv6 import modeling_rwkv6
from fla.models.rwkv7 import modeling_rwkv7
from fla.modules import activations, feature_map, mlp, rotary, token_shift
from fla.modules.causal_conv1d import ShortConvolution
from fla.modules.norm import fused_norm_gate, layernorm
from fla.ops.delta_rule.naive import delta_rule_recurrence
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.gsa.naive import naive_recurrent_gsa
from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
from fla.ops.retention.naive import naive_retention
from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6
from fla.ops.rwkv7.fused_addcmul import torch_addcmul_rwkv7
from fla.ops.rwkv7.fused_k_update import k_update_ref
from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref
from safetensors.torch import save_file

# T [H, L, L] of the layers that have run, in their order.
OPERATORS: list[torch.Tensor] = []


def replace(module: Any, name: str, function: Any) -> None:
    assert hasattr(module, name), f"{module.__name__} has no {name}"
    setattr(module, name, function)


def forbid_kernels() -> None:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"the kernel {self} was started")

    triton.runtime.jit.JITFunction.run = refuse
    triton.runtime.autotuner.Autotuner.run = refuse
    triton.runtime.autotuner.Heuristics.run = refuse


def unit_values(v: torch.Tensor) -> torch.Tensor:
    """Unit vectors instead of values [1, L, H, d]: what comes out is T, [1, L, H, L]."""
    _, length, heads, _ = v.shape
    return torch.eye(length)[None, :, None].expand(1, length, heads, length).contiguous()


def mix(naive: Any, v: torch.Tensor) -> tuple[torch.Tensor, None]:
    """`naive` maps values [1, L, H, d] to outputs; notes its operator."""
    OPERATORS.append(naive(unit_values(v))[0].transpose(0, 1).contiguous())
    return naive(v), None


def swapped(naive: Any) -> Any:
    """For naive forms that want heads before positions."""

    def run(*tensors: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        moved = [x.transpose(1, 2).contiguous() for x in tensors]
        out = naive(*moved, **kwargs)
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

    return run


def unit_length(x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def gla(q: Any, k: Any, v: Any, gk: Any = None, g: Any = None, **_: Any) -> Any:
    gates = gk if gk is not None else g
    return mix(lambda values: naive_recurrent_gla(q, k, values, gates)[0], v)


def retention(q: Any, k: Any, v: Any, **_: Any) -> Any:
    return mix(lambda values: swapped(naive_retention)(q, k, values), v)


def linear_attention(q: Any, k: Any, v: Any, normalize: bool, **_: Any) -> Any:
    return mix(
        lambda values: naive_recurrent_linear_attn(q, k, values, normalize=normalize)[0],
        v,
    )


def slot_attention(q: Any, k: Any, v: Any, s: Any, g: Any, scale: float, **_: Any) -> Any:
    return mix(lambda values: naive_recurrent_gsa(q, k, values, s, g, scale)[0], v)


def rwkv6(r: Any, k: Any, v: Any, w: Any, u: Any, scale: float, **_: Any) -> Any:
    def run(values: torch.Tensor, bonus: torch.Tensor) -> torch.Tensor:
        def naive(r: Any, k: Any, v: Any, w: Any) -> Any:
            return naive_recurrent_rwkv6(r, k, v, w, bonus, scale)

        return swapped(naive)(r, k, values, w)

    # The bonus is on the diagonal alone, outside of the recurrence.
    mix(lambda values: run(values, torch.zeros_like(u)), v)
    return run(v, u), None


def delta_rule(q: Any, k: Any, v: Any, beta: Any, use_qk_l2norm_in_kernel: bool, **_: Any) -> Any:
    if use_qk_l2norm_in_kernel:
        q, k = unit_length(q), unit_length(k)
    return mix(lambda values: swapped(delta_rule_recurrence)(q, k, values, beta), v)


def gated_delta_rule(q: Any, k: Any, v: Any, g: Any, beta: Any, **options: Any) -> Any:
    assert options["use_qk_l2norm_in_kernel"] and options["use_gate_in_kernel"]
    assert options["use_beta_sigmoid_in_kernel"]
    shared = v.shape[2] // q.shape[2]
    q, k = (unit_length(x).repeat_interleave(shared, 2) for x in (q, k))
    log_alpha = -options["A_log"].exp() * F.softplus(g + options["dt_bias"])
    beta = beta.sigmoid() * (2 if options["allow_neg_eigval"] else 1)
    return mix(lambda values: naive_recurrent_gated_delta_rule(q, k, values, beta, log_alpha)[0], v)


def chunk_rwkv7(r: Any, w: Any, k: Any, v: Any, a: Any, b: Any, scale: float, **_: Any) -> Any:
    # The naive form scales by the root of the width.
    r = r * scale * r.shape[-1] ** 0.5
    return mix(lambda values: swapped(dplr_recurrence)(r, k, values, a, b, w), v)


def rwkv7(kk: Any, a: Any, **arguments: Any) -> Any:
    return chunk_rwkv7(a=-kk, b=kk * a, **arguments)


def flash_attention(q: Any, k: Any, v: Any, causal: bool, window_size: tuple[int, int]) -> Any:
    shared = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(shared, 2) for x in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    position = torch.arange(q.shape[1])
    back = position[:, None] - position
    seen = back >= 0
    if window_size[0] >= 0:
        seen &= back <= window_size[0]
    maps = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    OPERATORS.append(maps[0])
    return torch.einsum("bhij,bjhd->bihd", maps, v)


def convolve(x: Any, weight: Any, bias: Any = None, activation: Any = None, **_: Any) -> Any:
    """A causal convolution of each channel: x [1, L, D], weight [D, K]."""
    taps = weight.shape[1]
    y = F.conv1d(x.mT, weight[:, None], bias, padding=taps - 1, groups=weight.shape[0])
    y = y[..., : x.shape[1]].mT
    return (F.silu(y) if activation is not None else y), None


def short_convolution(self: Any, x: torch.Tensor, **_: Any) -> Any:
    return convolve(x, self.weight[:, 0], self.bias, self.activation)


def weight_of(module: Any) -> torch.Tensor:
    return torch.ones(module.hidden_size) if module.weight is None else module.weight


def norm(reference: Any) -> Any:
    def forward(self: Any, x: Any, residual: Any = None, prenorm: bool = False) -> Any:
        groups = {"num_groups": self.num_groups} if hasattr(self, "num_groups") else {}
        return reference(
            x,
            weight_of(self),
            self.bias,
            residual=residual,
            eps=self.eps,
            prenorm=prenorm,
            **groups,
        )

    return forward


def gated_norm(self: Any, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    gate = torch.sigmoid(g) if self.activation == "sigmoid" else F.silu(g)
    return layernorm.rms_norm_ref(x, weight_of(self), None, eps=self.eps) * gate


def normed_linear(
    x: Any, norm_weight: Any, norm_bias: Any, weight: Any, bias: Any, eps: float = 1e-5
) -> torch.Tensor:
    ones = torch.ones(x.shape[-1]) if norm_weight is None else norm_weight
    return F.linear(layernorm.rms_norm_ref(x, ones, norm_bias, eps=eps), weight, bias)


def rotate(x: Any, cos: Any, sin: Any, interleaved: bool = False, **_: Any) -> Any:
    length = x.shape[1]
    return rotary.ops.rotary_embedding_ref(x, cos[:length], sin[:length], interleaved)


def shift(x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    return token_shift.token_shift_ref(x), None


def elu_plus_one(x: torch.Tensor) -> torch.Tensor:
    return F.elu(x) + 1


def replace_modules() -> None:
    layernorm.RMSNorm.forward = norm(layernorm.rms_norm_ref)
    layernorm.LayerNorm.forward = norm(layernorm.layer_norm_ref)
    layernorm.GroupNorm.forward = norm(layernorm.group_norm_ref)
    fused_norm_gate.FusedRMSNormGated.forward = gated_norm
    ShortConvolution.forward = short_convolution
    replace(rotary.ops, "rotary_embedding", rotate)
    replace(mlp, "swiglu", lambda x, y: F.silu(x) * y)
    replace(mlp, "swiglu_linear", lambda x, y, w, b: F.linear(F.silu(x) * y, w, b))
    replace(feature_map, "swish", F.silu)
    activations.ACT2FN.update(
        {
            "sigmoid": torch.sigmoid,
            "silu": F.silu,
            "swish": F.silu,
            "sqrelu": lambda x: F.relu(x).square(),
            "gelu": lambda x: F.gelu(x, approximate="tanh"),
        }
    )


def replace_kernels() -> None:
    for name in ("chunk_gla", "fused_chunk_gla", "fused_recurrent_gla"):
        replace(layers.gla, name, gla)
        replace(layers.hgrn2, name, gla)
    for form in ("chunk", "fused_chunk", "fused_recurrent"):
        replace(layers.linear_attn, f"{form}_linear_attn", linear_attention)
    for form in ("chunk", "fused_chunk", "fused_recurrent", "parallel"):
        replace(layers.multiscale_retention, f"{form}_retention", retention)
    for form in ("chunk", "fused_recurrent"):
        replace(layers.delta_net, f"{form}_delta_rule", delta_rule)
        replace(layers.gated_deltanet, f"{form}_gated_delta_rule", gated_delta_rule)
        replace(layers.gsa, f"{form}_gsa", slot_attention)
        replace(layers.rwkv6, f"{form}_rwkv6", rwkv6)
    for module in (layers.delta_net, layers.linear_attn):
        replace(module, "elu_p1", elu_plus_one)
    for module in (layers.hgrn2, layers.gsa):
        replace(module, "rms_norm_linear", normed_linear)
    replace(layers.hgrn2, "swish", F.silu)
    replace(layers.gated_deltanet, "causal_conv1d", convolve)
    replace(layers.attn, "flash_attn_func", flash_attention)
    replace(layers.rwkv7, "fused_mul_recurrent_rwkv7", rwkv7)
    replace(layers.rwkv7, "chunk_rwkv7", chunk_rwkv7)
    replace(layers.rwkv7, "fused_addcmul_rwkv7", torch_addcmul_rwkv7)
    replace(layers.rwkv7, "fused_k_rwkv7", k_update_ref)
    replace(layers.rwkv7, "gate_output_correction", gate_output_correction_ref)
    replace(layers.rwkv7, "l2_norm", unit_length)
    replace(layers.rwkv7, "token_shift", shift)
    replace(modeling_rwkv7, "token_shift", shift)
    for module in (layers.rwkv6, modeling_rwkv6):
        replace(module, "token_shift", lambda x, *_: token_shift.token_shift_ref(x))


def fresh(config: dict[str, Any]) -> Any:
    config = dict(config)
    fields = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    return transformers.AutoModelForCausalLM.from_config(fields)


def start(folder: str, config: dict[str, Any], seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    fresh(config).save_pretrained(folder)
    return {}


def make(folder: str, config: dict[str, Any], seed: int, scale: float) -> dict[str, Any]:
    model = fresh(config)
    model_parity.random_weights(model, seed, scale)
    model.save_pretrained(folder)
    return {}


def run(folder: str, prompt: list[int], out: str) -> dict[str, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    OPERATORS.clear()
    with torch.no_grad():
        logits = model(torch.tensor([prompt]), use_cache=False).logits[0]
    assert len(OPERATORS) == model.config.num_hidden_layers
    tensors = {f"operator.{layer}": maps for layer, maps in enumerate(OPERATORS)}
    save_file({"logits": logits.contiguous(), **tensors}, out)
    return {}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "start" in request:
        return start(request["start"], request["config"], request["seed"])
    if "make" in request:
        return make(request["make"], request["config"], request["seed"], request["scale"])
    return run(request["run"], request["prompt"], request["out"])


def main() -> None:
    # Answers alone go to the standard output, whatever the libraries print.
    answers = sys.stdout
    sys.stdout = sys.stderr
    forbid_kernels()
    replace_modules()
    replace_kernels()
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:  # noqa: BLE001  (the test shows it)
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
