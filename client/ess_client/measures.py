"""Measures of H_i = T[i:, :i] and their spelling: "tolerance:1e-3", "entropy", ...

The canonical spelling is the kind and, in the style of %g, the fewest digits that parse back to
the same double ("tolerance:0.001", "tolerance:1e-05"). The server's answers, the files and the
`measure` coordinate use it; any spelling is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ess_client.errors import InvalidArgument

THRESHOLD_KINDS = ("tolerance", "relative", "head_relative")
PLAIN_KINDS = ("entropy", "spectral_norm", "frobenius_norm", "causal")
SINGULAR_VALUES = "singular_values"
MAX_SINGULAR_VALUES = 1024
_STATE_SIZE_KINDS = (*THRESHOLD_KINDS, "entropy", "causal")


@dataclass(frozen=True)
class Measure:
    """One measure. `threshold` belongs to THRESHOLD_KINDS, `count` to singular_values."""

    kind: str
    threshold: float | None = None
    count: int | None = None

    @property
    def is_state_size(self) -> bool:
        """Whether it counts state dimensions, so that dividing by the TSS has a meaning."""
        return self.kind in _STATE_SIZE_KINDS

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"{self.kind}:{shortest(self.threshold)}"
        return self.kind if self.count is None else f"{self.kind}:{self.count}"


def shortest(value: float) -> str:
    """The fewest %g digits that parse back to `value`."""
    for digits in range(1, 17):
        text = f"{value:.{digits}g}"
        if float(text) == value:
            return text
    return f"{value:.17g}"


def parse_measure(text: str) -> Measure:
    """Reads any spelling. Raises InvalidArgument with the value and the limit."""
    kind, colon, value = text.strip().partition(":")
    if kind in PLAIN_KINDS:
        if colon:
            raise InvalidArgument(f"measure '{text}': {kind} takes no value")
        return Measure(kind)
    if kind in THRESHOLD_KINDS:
        return Measure(kind, threshold=_parse_threshold(text, kind, value))
    if kind == SINGULAR_VALUES:
        return Measure(kind, count=_parse_count(text, value))
    kinds = ", ".join([f"{k}:VALUE" for k in THRESHOLD_KINDS] + [*PLAIN_KINDS, "singular_values:K"])
    raise InvalidArgument(f"unknown measure '{text}'; the measures are {kinds}")


def parse_measures(texts: str | Iterable[str] | None) -> list[Measure]:
    """Reads one measure or several; None is the empty list, the server's defaults."""
    if texts is None:
        return []
    measures = [parse_measure(text) for text in ([texts] if isinstance(texts, str) else texts)]
    for index, measure in enumerate(measures):
        if measure in measures[:index]:
            raise InvalidArgument(f"measure '{measure}' is given twice")
    return measures


def canonical_measure(text: str) -> str:
    """The canonical spelling of a measure given in any."""
    return str(parse_measure(text))


def _parse_threshold(text: str, kind: str, value: str) -> float:
    try:
        threshold = float(value)
    except ValueError:
        raise InvalidArgument(f"measure '{text}': {kind} needs a number ({kind}:1e-3)") from None
    if not (math.isfinite(threshold) and threshold > 0):
        raise InvalidArgument(f"measure '{text}': {kind} must be finite and above 0")
    if kind != "tolerance" and threshold >= 1:
        raise InvalidArgument(f"measure '{text}': {kind} must be below 1")
    return threshold


def _parse_count(text: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_SINGULAR_VALUES):
        raise InvalidArgument(
            f"measure '{text}': K must be a whole number from 1 to {MAX_SINGULAR_VALUES}"
        )
    return int(value)
