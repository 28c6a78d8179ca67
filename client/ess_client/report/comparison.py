"""The comparison of several profiles of the same prompts: one page for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr

from ess_client._text import joined, number
from ess_client.errors import InvalidArgument
from ess_client.measures import parse_measure
from ess_client.profile import Profile
from ess_client.report.comparison_figures import COLORS, Curves, depth_figure, prompt_figure
from ess_client.report.data import PromptView, ReportData
from ess_client.report.page import (
    MAX_DRAWN_PROMPTS,
    MEANINGS,
    check_not_reduced,
    template,
    write_page,
)
from ess_client.report.separators import separator_effect, signed

LEVEL = 5e-4  # A depth that rounds to 0.0 %.


@dataclass(frozen=True, eq=False)
class Side:
    """One profile, cut to what all have, and the aggregates that the page shows of it."""

    label: str
    color: str
    report: ReportData
    average: xr.DataArray  # (measure, prompt, position)
    utilization: xr.DataArray  # The same.
    average_by_layer: xr.DataArray  # (measure, layer)
    utilization_by_layer: xr.DataArray  # The same.


def write_comparison(
    profiles: Sequence[Profile], path: str | PathLike[str], title: str | None = None
) -> None:
    """Writes the page, atomically."""
    write_page(render_comparison(profiles, title), path)


def render_comparison(profiles: Sequence[Profile], title: str | None = None) -> str:
    """The HTML that compares profiles by the measures, prompts and positions that all have.

    Raises InvalidArgument where there is nothing that all have, for a reduced profile, and for more
    profiles than there are colours.
    """
    if not 2 <= len(profiles) <= len(COLORS):
        raise InvalidArgument(
            f"a comparison is of 2 to {len(COLORS)} profiles; found {len(profiles)}"
        )
    for profile in profiles:
        check_not_reduced(profile)
    measures = _common_measures(profiles)
    prompts = _common_prompts(profiles)
    sides = [
        _side(_cut(profile, measures, prompts), label, color)
        for profile, label, color in zip(profiles, _labels(profiles), COLORS, strict=False)
    ]
    views = [sides[0].report.view(index) for index in range(len(prompts))]
    drawn = [view for view in views if len(view.positions)][:MAX_DRAWN_PROMPTS]
    versions = sorted({profile.versions.get("server", "") for profile in profiles})
    return template("comparison.html.j2").render(
        title=title or f"Memory of {joined([side.label for side in sides])}",
        summary=[row for side in sides for row in _summary(side, measures)],
        prompts=prompts,
        prompts_left_out=any(len(profile.prompts) > len(prompts) for profile in profiles),
        panels=[_panel(sides, measure, drawn) for measure in measures],
        omitted_prompts=sum(1 for view in views if len(view.positions)) - len(drawn),
        version=", ".join(version for version in versions if version),
    )


def _common_measures(profiles: Sequence[Profile]) -> list[str]:
    known = [{str(m) for m in profile.measures if m.count is None} for profile in profiles]
    common = set.intersection(*known)
    if not common:
        raise InvalidArgument("the profiles have no measure in common that can be drawn")
    return [name for name in profiles[0].measure_names if name in common]


def _common_prompts(profiles: Sequence[Profile]) -> list[str]:
    common = set.intersection(*({p.id for p in profile.prompts} for profile in profiles))
    if not common:
        raise InvalidArgument("the profiles have no prompt id in common")
    ids = [prompt.id for prompt in profiles[0].prompts if prompt.id in common]
    for prompt_id in ids:
        lengths = {p.length for profile in profiles for p in profile.prompts if p.id == prompt_id}
        if len(lengths) > 1:
            raise InvalidArgument(
                f"prompt {prompt_id} has {joined([str(n) for n in sorted(lengths)])} tokens: "
                "profiles are compared on the same tokens"
            )
    if any(not np.array_equal(p.positions, profiles[0].positions) for p in profiles):
        raise InvalidArgument("the profiles have different positions")
    return ids


def _cut(profile: Profile, measures: list[str], prompts: list[str]) -> Profile:
    rows = [profile.prompt_ids.index(prompt_id) for prompt_id in prompts]
    layers = tuple(
        replace(
            layer,
            tss=layer.tss[rows],
            ess={measure: layer.ess[measure][rows] for measure in measures},
            noise_floors=layer.noise_floors[rows],
            certain={},
        )
        for layer in profile.layers
    )
    return replace(
        profile,
        measures=tuple(parse_measure(measure) for measure in measures),
        prompts=tuple(profile.prompts[row] for row in rows),
        layers=layers,
    )


def _labels(profiles: Sequence[Profile]) -> list[str]:
    """Names of the models, numbered where several are the same."""
    names = [profile.model.get("name") or "model" for profile in profiles]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]


def _side(profile: Profile, label: str, color: str) -> Side:
    return Side(
        label=label,
        color=color,
        report=ReportData(profile),
        average=profile.average(by=["prompt", "position"]),
        utilization=profile.utilization(by=["prompt", "position"]),
        average_by_layer=profile.average(by=["layer"]),
        utilization_by_layer=profile.utilization(by=["layer"]),
    )


def _summary(side: Side, measures: list[str]) -> list[dict[str, Any]]:
    profile = side.report.profile
    seed = profile.model.get("random_init")
    rows = []
    for index, measure in enumerate(measures):
        share = float(side.report.used.sel(measure=measure))
        rows.append(
            {
                "model": side.label if index == 0 else "",
                "color": side.color,
                "architecture": profile.model.get("architecture", "") if index == 0 else "",
                "weights": ("checkpoint" if seed is None else f"random, seed {seed}")
                if index == 0
                else "",
                "operators": len(profile.layers) if index == 0 else "",
                "measure": measure,
                "average": number(float(side.report.average.sel(measure=measure))),
                "total": number(float(side.report.total.sel(measure=measure))),
                "utilization": "" if np.isnan(share) else f"{100 * share:.2f} %",
            }
        )
    return rows


def _panel(sides: list[Side], measure: str, drawn: list[PromptView]) -> dict[str, Any]:
    has_utilization = parse_measure(measure).is_state_size
    return {
        "measure": measure,
        "meaning": MEANINGS[parse_measure(measure).kind],
        "findings": _findings(sides, measure, drawn),
        "has_utilization": has_utilization,
        "prompts": [
            {
                "id": view.id,
                "length": view.length,
                "separators": int(view.separators.sum()),
                "thinned": len(view.tokens) > 72,
                "picture": prompt_figure(
                    view, [_curves(side, measure, view, has_utilization) for side in sides]
                ),
            }
            for view in drawn
        ],
        "depth_picture": depth_figure(
            [
                Curves(
                    side.label,
                    side.color,
                    side.average_by_layer.sel(measure=measure).values,
                    side.utilization_by_layer.sel(measure=measure).values
                    if has_utilization
                    else None,
                )
                for side in sides
            ]
        ),
    }


def _curves(side: Side, measure: str, view: PromptView, has_utilization: bool) -> Curves:
    count = len(view.positions)
    at = {"measure": measure, "prompt": view.id}
    return Curves(
        side.label,
        side.color,
        side.average.sel(at).values[:count],
        side.utilization.sel(at).values[:count] if has_utilization else None,
    )


def _findings(sides: list[Side], measure: str, drawn: list[PromptView]) -> list[str]:
    levels = {side.label: float(side.report.average.sel(measure=measure)) for side in sides}
    known = {label: level for label, level in levels.items() if not np.isnan(level)}
    if not known:
        return ["No prompt has more than one token: there is nothing to compare."]
    ordered = sorted(known, key=lambda label: -known[label])
    sentences = [
        "Mean per channel, from the largest: "
        + joined([f"{label} {number(known[label])}" for label in ordered])
        + "."
    ]
    shares = {side.label: float(side.report.used.sel(measure=measure)) for side in sides}
    if not any(np.isnan(share) for share in shares.values()):
        ordered = sorted(shares, key=lambda label: -shares[label])
        sentences.append(
            "Share of the state that could be held (TSS): "
            + joined([f"{label} {100 * shares[label]:.3g} %" for label in ordered])
            + "."
        )
    return sentences + _separator_findings(sides, measure, drawn)


def _separator_findings(sides: list[Side], measure: str, drawn: list[PromptView]) -> list[str]:
    parts, count = [], 0
    for side in sides:
        data = next(data for data in side.report.measures if data.measure == measure)
        effect = separator_effect(data, drawn)
        if effect is None:
            return []
        count = effect.count
        stands = "level" if abs(effect.at) < LEVEL else signed(effect.at)
        parts.append(f"{stands} in {side.label}")
    return [
        f"Total ESS at the {count} separators (sentence ends, line breaks, special tokens) against "
        f"its surroundings, on average: {joined(parts)}."
    ]
