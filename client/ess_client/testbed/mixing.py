"""y = T u and T itself, for the two recurrences of the testbed. Any floating dtype; differentiable.

Axes: B batch, H head, L length, N state size, d channels of a head, D channels of the layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Positions in one step of the loops below.
_CHUNK = 64
_GATED_CHUNK = 16


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions: pairs (m, m + N/2) of x [..., L, N] turn by position * theta^(-2m/N)."""
    length, states = x.shape[-2:]
    exponents = torch.arange(0, states, 2, dtype=torch.float32, device=x.device) / states
    positions = torch.arange(length, dtype=torch.float32, device=x.device)
    angles = torch.outer(positions, 1 / theta**exponents)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def decays(log_gates: Tensor) -> Tensor:
    """exp(sum over (j, i] of log_gates): [..., L] => [..., L, L], 0 above the diagonal."""
    length = log_gates.shape[-1]
    total = log_gates.cumsum(-1)
    difference = total.unsqueeze(-1) - total.unsqueeze(-2)
    past = torch.ones(length, length, dtype=torch.bool, device=log_gates.device).tril()
    return torch.where(past, difference, float("-inf")).exp()


def head_operators(c: Tensor, b: Tensor, log_gates: Tensor | None) -> Tensor:
    """T[i, j] = sum_n c_i[n] exp(sum over (j, i] of log_gates[n]) b_j[n], state by state.

    c, b, log_gates [B, H, L, N] => [B, H, L, L]; no gates: all 1. Cost: O(L^2 N).
    """
    if log_gates is None:
        return (c @ b.transpose(-1, -2)).tril()
    total = torch.zeros(*c.shape[:-1], c.shape[-2], dtype=c.dtype, device=c.device)
    for n in range(c.shape[-1]):
        outer = c[..., n].unsqueeze(-1) * b[..., n].unsqueeze(-2)
        total = total + decays(log_gates[..., n]) * outer
    return total


def channel_operators(c: Tensor, b: Tensor, delta: Tensor, rates: Tensor) -> Tensor:
    """T[i, j] = sum_n c_i[n] exp(-rates[n] sum over (j, i] of delta) delta_j b_j[n] per channel.

    c, b [B, L, N], delta [B, D, L], rates [N] => [B, D, L, L]. Cost: O(D L^2 N).
    """
    total = torch.zeros(*delta.shape, delta.shape[-1], dtype=c.dtype, device=c.device)
    for n in range(c.shape[-1]):
        outer = c[..., n].unsqueeze(-1) * b[..., n].unsqueeze(-2)
        total = total + decays(-rates[n] * delta) * outer.unsqueeze(1)
    return total * delta.unsqueeze(-2)


def linear_attention(c: Tensor, b: Tensor, u: Tensor, log_gates: Tensor | None) -> Tensor:
    """h_t = a_t * h_{t-1} + b_t u_t^T, y_t = c_t . h_t for each head.

    c, b, log_gates [B, H, L, N], u [B, H, L, d] => [B, H, L, d].
    """
    state = torch.zeros(*c.shape[:2], c.shape[-1], u.shape[-1], dtype=c.dtype, device=c.device)
    outputs = []
    size = _CHUNK if log_gates is None else _GATED_CHUNK
    for first in range(0, c.shape[2], size):
        cs, bs, us = (x[:, :, first : first + size] for x in (c, b, u))
        if log_gates is None:
            outputs.append((cs @ bs.mT).tril() @ us + cs @ state)
            state = state + bs.mT @ us
            continue
        logs = log_gates[:, :, first : first + size].mT  # [B, H, N, q]
        between = decays(logs)  # [B, H, N, q, q]
        since_start = logs.cumsum(-1).exp().mT  # [B, H, q, N]
        to_end = between[..., -1, :].mT  # [B, H, q, N]
        scores = (between * cs.mT.unsqueeze(-1) * bs.mT.unsqueeze(-2)).sum(2)
        outputs.append(scores @ us + (cs * since_start) @ state)
        state = state * since_start[:, :, -1].unsqueeze(-1) + (bs * to_end).mT @ us
    return torch.cat(outputs, dim=2)


def selective_scan(c: Tensor, b: Tensor, delta: Tensor, rates: Tensor, u: Tensor) -> Tensor:
    """h_t = exp(-rates delta_t) * h_{t-1} + delta_t b_t u_t, y_t = c_t . h_t for each channel.

    c, b [B, L, N], delta, u [B, D, L], rates [N] => [B, D, L].
    """
    state = torch.zeros(*delta.shape[:2], c.shape[-1], dtype=c.dtype, device=c.device)
    outputs = []
    for first in range(0, c.shape[1], _CHUNK):
        part = slice(first, first + _CHUNK)
        steps = delta[:, :, part].unsqueeze(-1)  # [B, D, q, 1]
        gates = (-rates * steps).exp()  # [B, D, q, N]
        inputs = steps * b[:, part].unsqueeze(1) * u[:, :, part].unsqueeze(-1)
        gates, inputs = _scan(gates, inputs)
        states = inputs + gates * state.unsqueeze(2)
        outputs.append((states * c[:, part].unsqueeze(1)).sum(-1))
        state = states[:, :, -1]
    return torch.cat(outputs, dim=2)


def _scan(gates: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Products of gates, and states from 0, at every position of axis 2, by doubling."""
    reach = 1
    while reach < gates.shape[2]:
        earlier_gates = torch.nn.functional.pad(gates[:, :, :-reach], (0, 0, reach, 0), value=1.0)
        earlier = torch.nn.functional.pad(inputs[:, :, :-reach], (0, 0, reach, 0))
        inputs = inputs + gates * earlier
        gates = gates * earlier_gates
        reach *= 2
    return gates, inputs
