"""The operators of public mixers that show no maps, formed in float64 from what goes into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def decays(log_gates: np.ndarray) -> np.ndarray:
    """exp(sum over (j, i] of log_gates): [..., L] => [..., L, L], 0 above the diagonal."""
    total = np.cumsum(log_gates, axis=-1)
    difference = total[..., :, None] - total[..., None, :]
    return np.tril(np.exp(np.minimum(difference, 0)))


def channel_operators(delta: torch.Tensor, A: Any, B: Any, C: Any) -> np.ndarray:
    """Mamba: delta [E, L], A [E, N], B and C [N, L] => [E, L, L]."""
    wide = delta.double().numpy()
    b, c = B.double().numpy(), C.double().numpy()
    total = np.zeros((wide.shape[0], wide.shape[1], wide.shape[1]))
    for state, rates in enumerate(A.double().numpy().T):
        total += decays(wide * rates[:, None]) * np.multiply.outer(c[state], b[state])
    return total * wide[:, None, :]


def head_operators(delta: torch.Tensor, A: Any, B: Any, C: Any) -> np.ndarray:
    """Mamba-2: delta [L, H], A [H], B and C [L, G, N] => [H, L, L]."""
    wide = delta.double().numpy().T
    heads = wide.shape[0] // B.shape[1]
    b = np.repeat(B.double().numpy().transpose(1, 0, 2), heads, axis=0)
    c = np.repeat(C.double().numpy().transpose(1, 0, 2), heads, axis=0)
    gates = decays(wide * A.double().numpy()[:, None])
    return gates * (c @ b.transpose(0, 2, 1)) * wide[:, None, :]


def delta_operators(
    queries: torch.Tensor,
    keys: torch.Tensor,
    log_gates: torch.Tensor,
    betas: torch.Tensor,
) -> np.ndarray:
    """The gated delta rule: queries (scaled) and keys [L, H, N], log_gates and betas [L, H] =>
    [H, L, L].

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T in closed form: with the decays D and what
    each write erases of the writes before it, E = diag(b) (D * K K^T) below the diagonal,
    T = (D * Q K^T) (I + E)^-1 diag(b).
    """
    q, k = (x.double().numpy().transpose(1, 0, 2) for x in (queries, keys))
    beta = betas.double().numpy().T
    gates = decays(log_gates.double().numpy().T)
    erased = np.tril(gates * (k @ k.transpose(0, 2, 1)), -1) * beta[:, :, None]
    writes = np.linalg.solve(np.eye(k.shape[1]) + erased, np.eye(k.shape[1]) * beta[:, None, :])
    return (gates * (q @ k.transpose(0, 2, 1))) @ writes


def gated_convolution_operators(
    gate_out: torch.Tensor, taps: torch.Tensor, gate_in: torch.Tensor
) -> np.ndarray:
    """T[i, j] = gate_out_i taps[K - 1 - (i - j)] gate_in_j: gates [L, D] and taps [D, K] =>
    [D, L, L]."""
    length, channels = gate_in.shape
    filters = taps.double().numpy()[:, ::-1]
    total = np.zeros((channels, length, length))
    for lag in range(min(filters.shape[1], length)):
        rows = np.arange(lag, length)
        total[:, rows, rows - lag] = filters[:, lag, None]
    wide_out, wide_in = gate_out.double().numpy().T, gate_in.double().numpy().T
    return wide_out[:, :, None] * total * wide_in[:, None, :]
