"""Sentences that say what the pictures of one measure show."""

from __future__ import annotations

import numpy as np

from ess_client._text import joined, number
from ess_client.measures import parse_measure
from ess_client.profile import Profile
from ess_client.report.data import MeasureData, PromptView, ReportData
from ess_client.report.separators import separator_effect, signed
from ess_client.report.tokens import label

SATURATED, IDLE = 0.95, 0.05
NAMED = 3  # Examples in a sentence.


def findings(data: MeasureData, report: ReportData, views: list[PromptView]) -> list[str]:
    """Plain sentences, the most general first."""
    sentences = [_level(data)]
    for view in views:
        sentences += _dips(data, view)
    sentences += _separators(data, views)
    if data.has_utilization:
        sentences += _utilization(data)
    sentences += _heads(data)
    sentences += _noise(data, report.profile)
    return sentences


def _level(data: MeasureData) -> str:
    if np.isnan(data.average):
        return "No prompt has more than one token: there is nothing to average."
    text = (
        f"The mean over layers, heads and positions is {number(data.average)}; summed over the "
        f"channels of a layer it is {number(data.total)}"
    )
    if np.isnan(data.used):
        return f"{text}."
    return f"{text}, {100 * data.used:.3g} % of what the layers could hold (TSS)."


def _dips(data: MeasureData, view: PromptView) -> list[str]:
    dips = data.dips(view)[:NAMED]
    if not dips:
        return []
    parts = []
    for dip in dips:
        token = f" (“{label(view.tokens[dip.column])}”)" if view.tokens else ""
        parts.append(f"{100 * dip.depth:.0f} % at position {dip.position}{token}")
    name = "Prompt" if len(parts) == 1 else "Largest dips of prompt"
    verb = " has one dip:" if len(parts) == 1 else ":"
    return [f"{name} {view.id}{verb} {joined(parts)} below the tokens around."]


def _separators(data: MeasureData, views: list[PromptView]) -> list[str]:
    effect = separator_effect(data, views)
    if effect is None:
        return []
    if effect.at < 0.02 or effect.at < effect.elsewhere + 0.02:
        return [
            f"The {effect.count} separators (sentence ends, line breaks, special tokens) do not "
            f"stand out: total ESS there is {signed(effect.at)} its surroundings on average."
        ]
    return [
        f"At the {effect.count} separators (sentence ends, line breaks, special tokens) total ESS "
        f"is {signed(effect.at)} its surroundings on average; at other tokens it is "
        f"{signed(effect.elsewhere)}: memory is let go where the context ends."
    ]


def _utilization(data: MeasureData) -> list[str]:
    known = [
        (value, name)
        for value, name in zip(data.utilization, data.layer_names, strict=True)
        if not np.isnan(value)
    ]
    ordered = sorted(known, key=lambda pair: pair[0])
    sentences = []
    if len(ordered) > 1:
        named = min(NAMED, len(ordered) // 2)
        least, most = ordered[:named], ordered[::-1][:named]
        sentences.append(
            f"Utilization is highest in {joined(_layer_shares(most))} and lowest in "
            f"{joined(_layer_shares(least))}."
        )
    saturated = [name for value, name in known if value >= SATURATED]
    idle = [name for value, name in known if value <= IDLE]
    for names, text in (
        (saturated, f"saturated: at least {100 * SATURATED:g} % of the TSS in use"),
        (idle, f"nearly idle: at most {100 * IDLE:g} % of the TSS in use"),
    ):
        if names:
            plural = "s" if len(names) > 1 else ""
            verb = "are" if plural else "is"
            sentences.append(f"Layer{plural} {_some(names)} {verb} {text}.")
    return sentences or [f"The layer uses {100 * ordered[0][0]:.3g} % of its TSS."]


def _heads(data: MeasureData) -> list[str]:
    grid = data.layer_by_head
    if not np.isfinite(grid).any() or np.isfinite(grid).sum() < 2:
        return []
    names, heads = data.layer_names, data.heads
    high = np.unravel_index(np.nanargmax(grid), grid.shape)
    low = np.unravel_index(np.nanargmin(grid), grid.shape)
    return [
        f"Heads reach from {number(float(grid[low]))} (layer {names[low[0]]}, head {heads[low[1]]})"
        f" to {number(float(grid[high]))} (layer {names[high[0]]}, head {heads[high[1]]})."
    ]


def _noise(data: MeasureData, profile: Profile) -> list[str]:
    measure = parse_measure(data.measure)
    if measure.kind != "tolerance" or measure.threshold is None:
        return []
    floors = profile.noise_floors.values
    if not np.isfinite(floors).any():
        return []
    highest = float(np.nanmax(floors))
    below = sum(layer.below_noise_floor.get(data.measure, 0) for layer in profile.layers)
    known = int(np.isfinite(floors).sum())
    if below:
        return [
            f"Warning: the tolerance {measure.threshold:g} lies below the noise floor of {below} "
            f"of {known} heads and prompts (highest floor {highest:.2g}); there it counts "
            "rounding noise of the features that made the operator."
        ]
    return [
        f"The tolerance {measure.threshold:g} lies above every noise floor (highest: "
        f"{highest:.2g}): the counts are not rounding noise."
    ]


def _layer_shares(pairs: list[tuple[float, str]]) -> list[str]:
    return [f"layer {name} ({100 * value:.3g} %)" for value, name in pairs]


def _some(names: list[str], limit: int = 8) -> str:
    if len(names) <= limit:
        return joined(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
