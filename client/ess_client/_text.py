"""A profile in a few lines of text, for a notebook or a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ess_client.profile import Profile


def describe(profile: Profile) -> str:
    """Model, sizes, names, and each measure's average, total and utilization."""
    lengths = [prompt.length for prompt in profile.prompts]
    tokens = str(lengths[0]) if len(set(lengths)) == 1 else f"{min(lengths)}-{max(lengths)}"
    lines = [
        f"Profile of {profile.model.get('name', '?')}: {len(profile.layers)} operators, "
        f"{len(profile.prompts)} prompts of {tokens} tokens, {len(profile.positions)} positions",
        f"  operators: {_shortened(profile.layer_names)}",
        f"  prompts: {_shortened(profile.prompt_ids)}",
    ]
    average, total, used = profile.average(), profile.total(), profile.utilization(by=())
    for name in average.coords["measure"].values:
        line = f"  {name}: average {number(float(average.sel(measure=name)))}"
        line += f", total {number(float(total.sel(measure=name)))}"
        share = float(used.sel(measure=name))
        lines.append(line if np.isnan(share) else f"{line}, utilization {share:.1%}")
    return "\n".join(lines)


def number(value: float) -> str:
    """Four significant digits at most, thousands separated; a hyphen for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def joined(parts: list[str]) -> str:
    """An enumeration: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names if len(names) < 7 else [*names[:3], "...", names[-1]])
