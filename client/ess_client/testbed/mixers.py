"""The six mixers: features of the layer's input, and what they make of the values.

Source: Parnichkun et al. 2025 (arXiv:2504.19561), appendix D.2. As there, b_t and c_t are functions
of x_t and the state is read after the step: T[i, j] = c_i A_i ... A_{j+1} b_j for j <= i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ess_client.testbed import mixing
from ess_client.testbed.config import EssTestbedConfig


class Mixer(nn.Module):
    """y = W_o (T(x) W_v x), optionally normed and gated before W_o. x and y are [B, L, D]."""

    kind: str

    def __init__(self, config: EssTestbedConfig, kind: str) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.kind = kind
        self.state_size = config.states(kind)  # N
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.g_proj = nn.Linear(width, width, bias=False) if config.output_gate else None
        normed = config.output_norm and kind != "SA"
        self.norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps) if normed else None

    @property
    def operator_count(self) -> int:
        """Independent operators: heads, or channels in S6."""
        return self.config.num_attention_heads

    @property
    def channels(self) -> int:
        """How many channels share an operator."""
        return self.config.hidden_size // self.operator_count

    def tss(self, length: int) -> Tensor:
        """What each position could carry: int64 [L]."""
        sizes = torch.full((length,), self.state_size)
        sizes[0] = 0
        return sizes

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x, self.v_proj(x))
        if self.norm is not None:
            mixed = self.norm(self._heads(mixed)).transpose(1, 2).flatten(-2)
        if self.g_proj is not None:
            mixed = mixed * functional.silu(self.g_proj(x))
        projected: Tensor = self.o_proj(mixed)
        return projected

    def mix(self, x: Tensor, values: Tensor) -> Tensor:
        """T(x) applied to values [B, L, D], each channel by the operator of its head."""
        raise NotImplementedError

    def operators(self, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """T(x) [B, H, L, L] from features in the dtype of x, formed in `dtype`."""
        raise NotImplementedError

    def gates(self, x: Tensor) -> Tensor | None:
        """The diagonal of A_t [B, H, L, N]; None where it is the identity or there is none."""
        return None

    def _heads(self, x: Tensor) -> Tensor:
        """[B, L, H w] => [B, H, L, w]"""
        return x.reshape(*x.shape[:2], self.config.num_attention_heads, -1).transpose(1, 2)


class SoftmaxAttention(Mixer):
    """SA: T = row softmax(scale C B^T), causal, with rotary positions."""

    def __init__(self, config: EssTestbedConfig, kind: str) -> None:
        super().__init__(config, kind)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def tss(self, length: int) -> Tensor:
        return torch.arange(length)

    def mix(self, x: Tensor, values: Tensor) -> Tensor:
        mixed = self._maps(*self._queries_keys(x)) @ self._heads(values)
        return mixed.transpose(1, 2).flatten(-2)

    def operators(self, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        queries, keys = self._queries_keys(x)
        return self._maps(queries.to(dtype), keys.to(dtype))

    def _queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.config.rope_theta
        queries, keys = self._heads(self.q_proj(x)), self._heads(self.k_proj(x))
        return mixing.rotate(queries, theta), mixing.rotate(keys, theta)

    def _maps(self, queries: Tensor, keys: Tensor) -> Tensor:
        scores = self.config.scale(self.kind) * queries @ keys.mT
        length = scores.shape[-1]
        past = torch.ones(length, length, dtype=torch.bool, device=scores.device).tril()
        return torch.where(past, scores, float("-inf")).softmax(-1)


class HeadRecurrence(Mixer):
    """LA, WLA, GLA, GLA-S6: h_t = a_t * h_{t-1} + b_t u_t^T of each head. They differ in a_t."""

    def __init__(self, config: EssTestbedConfig, kind: str) -> None:
        super().__init__(config, kind)
        width = config.num_attention_heads * self.state_size
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)  # W_C
        self.k_proj = nn.Linear(config.hidden_size, width, bias=False)  # W_B
        if kind == "WLA":
            self.A = nn.Parameter(torch.zeros(config.num_attention_heads, self.state_size))
        if kind in ("GLA", "GLA-S6"):
            self.gk_proj = nn.Sequential(  # W_A1, W_A2
                nn.Linear(config.hidden_size, config.gate_rank, bias=False),
                nn.Linear(config.gate_rank, width, bias=False),
            )

    def mix(self, x: Tensor, values: Tensor) -> Tensor:
        c, b = self._outputs_inputs(x)
        mixed = mixing.linear_attention(c, b, self._heads(values), self._log_gates(x))
        return mixed.transpose(1, 2).flatten(-2)

    def operators(self, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        c, b = self._outputs_inputs(x)
        log_gates = self._log_gates(x)
        wide = None if log_gates is None else log_gates.to(dtype)
        return mixing.head_operators(c.to(dtype), b.to(dtype), wide)

    def gates(self, x: Tensor) -> Tensor | None:
        log_gates = self._log_gates(x)
        return None if log_gates is None else log_gates.exp()

    def _outputs_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c, b = self._heads(self.q_proj(x)), self._heads(self.k_proj(x))
        if self.kind == "LA":
            theta = self.config.rope_theta
            c, b = mixing.rotate(c, theta), mixing.rotate(b, theta)
        return self.config.scale(self.kind) * c, b

    def _log_gates(self, x: Tensor) -> Tensor | None:
        if self.kind == "LA":
            return None
        if self.kind == "WLA":
            log_gates = functional.logsigmoid(self.A) / self.config.beta
            return log_gates[None, :, None].expand(x.shape[0], -1, x.shape[1], -1)
        features = self._heads(self.gk_proj(x))
        if self.kind == "GLA":
            return functional.logsigmoid(features) / self.config.beta
        ramp = torch.arange(1, self.state_size + 1, dtype=x.dtype, device=x.device)
        return -(ramp / self.config.alpha) * functional.softplus(features)


class ChannelRecurrence(Mixer):
    """S6: a recurrence of its own for every channel, with b_t and c_t that all share."""

    def __init__(self, config: EssTestbedConfig, kind: str) -> None:
        super().__init__(config, kind)
        self.q_proj = nn.Linear(config.hidden_size, self.state_size, bias=False)  # W_C
        self.k_proj = nn.Linear(config.hidden_size, self.state_size, bias=False)  # W_B
        self.dt_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.A = nn.Parameter(torch.ones(self.state_size))  # Rates: a_t = exp(-A delta_t).

    @property
    def operator_count(self) -> int:
        return self.config.hidden_size

    def mix(self, x: Tensor, values: Tensor) -> Tensor:
        return mixing.selective_scan(*self._features(x), values.mT).mT

    def operators(self, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        return mixing.channel_operators(*(feature.to(dtype) for feature in self._features(x)))

    def gates(self, x: Tensor) -> Tensor | None:
        _, _, delta, rates = self._features(x)
        return (-rates * delta.unsqueeze(-1)).exp()

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c, b [B, L, N], delta [B, D, L], rates [N]"""
        delta = functional.softplus(self.dt_proj(x)).mT
        return self.config.scale(self.kind) * self.q_proj(x), self.k_proj(x), delta, self.A


def make_mixer(config: EssTestbedConfig, kind: str) -> Mixer:
    classes: dict[str, type[Mixer]] = {"SA": SoftmaxAttention, "S6": ChannelRecurrence}
    return classes.get(kind, HeadRecurrence)(config, kind)
