"""What happens to a curve at the separators of its prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ess_client.report.data import MeasureData, PromptView
from ess_client.report.dips import depths


@dataclass(frozen=True)
class SeparatorEffect:
    """Mean depth (ess_client.report.dips) of total ESS at separators and at other tokens."""

    count: int  # Separators with a depth.
    at: float
    elsewhere: float


def separator_effect(data: MeasureData, views: list[PromptView]) -> SeparatorEffect | None:
    """None where there are no separators, or nothing else."""
    at: list[float] = []
    elsewhere: list[float] = []
    for view in views:
        depth = depths(data.total_by_position(view))
        known = ~np.isnan(depth)
        at += list(depth[known & view.separators])
        elsewhere += list(depth[known & ~view.separators])
    if not at or not elsewhere:
        return None
    return SeparatorEffect(len(at), float(np.mean(at)), float(np.mean(elsewhere)))


def signed(depth: float) -> str:
    return f"{abs(100 * depth):.1f} % {'below' if depth >= 0 else 'above'}"
