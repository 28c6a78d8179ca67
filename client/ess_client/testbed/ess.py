"""Effective state-size by its definition: an SVD of every H_i = T[i:, :i] in float64.

The server computes the same much faster; this is what its answers are compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ess_client.measures import Measure, parse_measure

# As the server: a singular value equal to the tolerance is not counted (docs/ess.md).
_TIE = 1 + 1e-11


def singular_values(operator: Tensor) -> list[Tensor]:
    """Of one operator [L, L]: the singular values of H_i for every position i, largest first."""
    wide = operator.to(torch.float64)
    length = wide.shape[-1]
    return [
        torch.linalg.svdvals(wide[i:, :i]) if i > 0 else wide.new_zeros(0) for i in range(length)
    ]


def effective_state_size(operators: Tensor, measure: str = "tolerance:1e-3") -> Tensor:
    """One measure of operators [..., L, L] at every position: float64 [..., L].

    tolerance:t, relative:e, head_relative:e, entropy, spectral_norm or frobenius_norm.
    Cost: O(L^4) for each operator.
    """
    parsed = parse_measure(measure)
    flat = operators.reshape(-1, *operators.shape[-2:])
    rows = [_measure_all(singular_values(operator), parsed) for operator in flat]
    return torch.stack(rows).reshape(operators.shape[:-1])


def _measure_all(spectra: list[Tensor], measure: Measure) -> Tensor:
    largest = max((float(sigma[0]) for sigma in spectra if len(sigma) > 0), default=0.0)
    return torch.tensor([_measure(sigma, measure, largest) for sigma in spectra]).double()


def _measure(sigma: Tensor, measure: Measure, largest: float) -> float:
    if len(sigma) == 0 or float(sigma[0]) == 0:
        return 0.0
    if measure.threshold is not None:
        scales = {"tolerance": 1.0, "relative": float(sigma[0]), "head_relative": largest}
        tolerance = measure.threshold * scales[measure.kind] * _TIE
        return float((sigma > tolerance).sum())
    if measure.kind == "entropy":
        shares = sigma / sigma.sum()
        return float(torch.exp(torch.special.entr(shares).sum()))
    if measure.kind == "spectral_norm":
        return float(sigma[0])
    if measure.kind == "frobenius_norm":
        return float(torch.linalg.vector_norm(sigma))
    raise ValueError(f"measure {measure} is not computed here; the server has it")
