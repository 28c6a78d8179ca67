"""The page: data and pictures put into report.html.j2."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import jinja2
import numpy as np

from ess_client._text import number
from ess_client.errors import InvalidArgument
from ess_client.measures import parse_measure
from ess_client.profile import Profile
from ess_client.report.data import MeasureData, PromptView, ReportData
from ess_client.report.figures import layer_figure, position_figure
from ess_client.report.findings import findings
from ess_client.storage import written_atomically

MAX_DRAWN_PROMPTS = 12
MAX_TABLE_PROMPTS = 64


def write_report(profile: Profile, path: str | PathLike[str], title: str | None = None) -> None:
    """Writes the report, atomically."""
    write_page(render_report(profile, title), path)


def render_report(profile: Profile, title: str | None = None) -> str:
    """The HTML of a profile's report; title: default the model's name."""
    check_not_reduced(profile)
    report = ReportData(profile)
    views = [report.view(index) for index in range(len(profile.prompts))]
    drawn = [view for view in views if len(view.positions)][:MAX_DRAWN_PROMPTS]
    return template("report.html.j2").render(
        title=title or f"Memory profile of {profile.model.get('name') or 'a model'}",
        facts=_facts(profile),
        summary=_summary(profile),
        omitted_rows=max(0, len(profile.prompts) - MAX_TABLE_PROMPTS),
        panels=[_panel(data, report, drawn) for data in report.measures],
        omitted_prompts=sum(1 for view in views if len(view.positions)) - len(drawn),
        skipped_measures=[str(m) for m in profile.measures if m.count is not None],
        version=profile.versions.get("server", ""),
    )


def check_not_reduced(profile: Profile) -> None:
    if profile.reduction is not None:
        raise InvalidArgument(
            f"a report needs every head and position, and this profile holds means over "
            f'{profile.reduction} (reduce="{profile.reduction}"): profile again without reduce'
        )


def template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ess_client.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def write_page(page: str, path: str | PathLike[str]) -> None:
    """Writes a page, atomically."""
    with written_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _panel(data: MeasureData, report: ReportData, drawn: list[PromptView]) -> dict[str, Any]:
    return {
        "measure": data.measure,
        "meaning": MEANINGS[parse_measure(data.measure).kind],
        "findings": findings(data, report, drawn),
        "prompts": [
            {
                "id": view.id,
                "length": view.length,
                "separators": int(view.separators.sum()),
                "thinned": len(view.tokens) > 72,
                "picture": position_figure(data, view),
            }
            for view in drawn
        ],
        "layers_picture": layer_figure(data) if np.isfinite(data.layer_by_head).any() else None,
        "has_utilization": data.has_utilization,
    }


MEANINGS = {
    "tolerance": "singular values of H_i above this tolerance",
    "relative": "singular values of H_i above this fraction of the largest",
    "head_relative": "singular values of H_i above this fraction of the head's largest",
    "entropy": "exponential of the entropy of H_i's normalised singular values",
    "spectral_norm": "largest singular value of H_i; a size, not a state-size",
    "frobenius_norm": "Frobenius norm of H_i; a size, not a state-size",
    "causal": "numerical rank of the recurrence's past factor",
}


def _facts(profile: Profile) -> list[tuple[str, str]]:
    classes = sorted({layer.operator_class for layer in profile.layers})
    heads = sorted({len(layer.heads) for layer in profile.layers})
    heads_text = str(heads[0]) if len(heads) == 1 else f"{heads[0]} to {heads[-1]}"
    model = profile.model
    routes = sorted({route for layer in profile.layers for route in layer.routes.values()})
    facts = [
        ("Model", ", ".join(t for t in (model.get("name"), model.get("architecture")) if t)),
        ("Operators", f"{len(profile.layers)} of {heads_text} heads; {', '.join(classes)}"),
        ("Positions", f"{len(profile.positions)}, up to {int(profile.positions.max())}"),
        ("Arithmetic", ", ".join(t for t in (model.get("dtype"), model.get("device")) if t)),
        ("Options", ", ".join(_option(*option) for option in profile.options.items())),
        ("Routes", ", ".join(route for route in routes if route)),
        ("Weights", _weights(model)),
    ]
    return [(name, text) for name, text in facts if text]


def _option(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        value = " ".join(f"{field}={number}" for field, number in value.items())
    return f"{name} {value}"


def _weights(model: Mapping[str, str]) -> str:
    digest, seed = (model.get("weight_digest") or "")[:16], model.get("random_init")
    return digest if seed is None else f"random, seed {seed}"


def _summary(profile: Profile) -> list[dict[str, Any]]:
    average, total = profile.average(by=["prompt"]), profile.total(by=["prompt"])
    used = profile.utilization(by=["prompt"])
    rows = []
    for m, measure in enumerate(average.coords["measure"].values):
        for index, prompt in enumerate(profile.prompts[:MAX_TABLE_PROMPTS]):
            share = float(used[m, index])
            rows.append(
                {
                    "measure": str(measure) if index == 0 else "",
                    "prompt": prompt.id,
                    "tokens": prompt.length,
                    "average": number(float(average[m, index])),
                    "total": number(float(total[m, index])),
                    "utilization": "" if np.isnan(share) else f"{100 * share:.2f} %",
                    "warning": _noise_warning(profile, str(measure), index),
                }
            )
    return rows


def _noise_warning(profile: Profile, measure: str, prompt: int) -> str:
    """How many of a prompt's heads have a noise floor above the tolerance."""
    parsed = parse_measure(measure)
    if parsed.kind != "tolerance" or parsed.threshold is None:
        return ""
    floors = profile.noise_floors.values[:, prompt]
    known, below = int(np.isfinite(floors).sum()), int((floors > parsed.threshold).sum())
    return f"{below} of {known} heads below noise floor" if below else ""
