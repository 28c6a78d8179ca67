"""Pictures of a profile, as SVG images in data URIs.

Colour maps are perceptually uniform and safe for colour-blind readers (viridis); lines use the
Okabe-Ito palette. Text stays text, drawn by the browser's fonts, so that any script shows.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ess_client._text import number
from ess_client.report.data import MeasureData, PromptView
from ess_client.report.tokens import label

WIDTH = 11.6  # inches; the page shows one inch as 96 px
BLUE, VERMILION, GREY, INK = "#0072B2", "#D55E00", "#8a8f98", "#22262b"
MAX_TOKEN_LABELS = 72
MAX_LAYER_LABELS = 32

STYLE: Any = {  # matplotlib.rcParams
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": "#9aa0a8",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "ess",
    "figure.facecolor": "none",
}


def position_figure(data: MeasureData, view: PromptView) -> str:
    """Total ESS by position over the heat map layer x position; both share the tokens below."""
    columns = len(view.positions)
    heat_height = min(max(0.13 * len(data.layer_names), 1.1), 5.0)
    with mpl.rc_context(STYLE):
        heights = (1.75, heat_height)
        labels = token_labels(view)
        below = height_below(labels)
        figure = Figure(figsize=(WIDTH, sum(heights) + below + 0.43))
        grid = figure.add_gridspec(
            2,
            2,
            height_ratios=heights,
            width_ratios=(1, 0.013),
            left=0.075,
            right=0.945,
            top=1 - 0.32 / figure.get_figheight(),
            bottom=below / figure.get_figheight(),
            hspace=0.07,
            wspace=0.03,
        )
        curve = figure.add_subplot(grid[0, 0])
        heat = figure.add_subplot(grid[1, 0])
        _draw_curve(curve, data, view)
        image = heat.imshow(
            data.layer_by_position(view),
            aspect="auto",
            origin="lower",
            cmap=_color_map(),
            vmin=0,
            interpolation="none",
            extent=(-0.5, columns - 0.5, -0.5, len(data.layer_names) - 0.5),
        )
        _color_bar(figure, image, figure.add_subplot(grid[1, 1]), data.mean_label)
        _layer_axis(heat, data.layer_names)
        token_axis(heat, view, labels)
        return data_uri(figure)


def layer_figure(data: MeasureData) -> str:
    """Mean ESS by layer and head, beside utilization by layer, on one layer axis."""
    with mpl.rc_context(STYLE):
        height = min(max(0.19 * len(data.layer_names), 1.4), 7.0)
        figure = Figure(figsize=(WIDTH, height + 0.85))
        wide = data.has_utilization
        grid = figure.add_gridspec(
            1,
            4,
            width_ratios=(1, 0.02, 0.13, 0.9) if wide else (1.9, 0.02, 0.01, 0.01),
            left=0.075,
            right=0.97,
            top=1 - 0.3 / figure.get_figheight(),
            bottom=0.55 / figure.get_figheight(),
            wspace=0.04,
        )
        heat = figure.add_subplot(grid[0, 0])
        image = heat.imshow(
            data.layer_by_head,
            aspect="auto",
            origin="lower",
            cmap=_color_map(),
            vmin=0,
            interpolation="none",
        )
        _color_bar(figure, image, figure.add_subplot(grid[0, 1]), data.mean_label)
        _layer_axis(heat, data.layer_names)
        _head_axis(heat, data.heads)
        heat.set_title(data.head_title, loc="left", fontsize=10, fontweight="bold")
        if wide:
            _draw_utilization(figure.add_subplot(grid[0, 3], sharey=heat), data)
        return data_uri(figure)


def _draw_curve(axes: Axes, data: MeasureData, view: PromptView) -> None:
    values = data.total_by_position(view)
    columns = np.arange(len(values))
    few = len(values) <= MAX_TOKEN_LABELS
    for column in np.flatnonzero(view.separators).tolist():
        axes.axvline(column, color=VERMILION, linewidth=0.9 if few else 0.6, alpha=0.45, zorder=1)
    axes.plot(
        columns,
        values,
        color=BLUE,
        linewidth=1.5 if few else 1.1,
        marker="o" if few else None,
        markersize=2.8,
        zorder=3,
    )
    axes.fill_between(columns, values, color=BLUE, alpha=0.08, linewidth=0, zorder=2)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    _mark_dips(axes, data, view, values, top or 1.0)
    axes.set_ylim(0, 1.12 * (top or 1.0))
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_ylabel(data.total_label)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_number(value)))
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.6)
    axes.set_axisbelow(True)
    position_axis(axes, view)


def _mark_dips(
    axes: Axes, data: MeasureData, view: PromptView, values: npt.NDArray[np.float64], top: float
) -> None:
    """The largest dips with their size, below the curve, or above it where there is no room."""
    last = -np.inf
    spacing = len(values) / 24
    for dip in sorted(data.dips(view), key=lambda dip: dip.column):
        y = float(values[dip.column])
        side = -1 if y > 0.28 * top else 1
        marker = "^" if side < 0 else "v"
        axes.plot(
            dip.column, y + side * 0.055 * top, marker, color=VERMILION, markersize=5, zorder=4
        )
        if dip.column - last >= spacing:
            axes.text(
                dip.column,
                y + side * 0.10 * top,
                f"−{dip.depth:.0%}",  # noqa: RUF001
                ha="center",
                va="top" if side < 0 else "bottom",
                fontsize=8,
                color=VERMILION,
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
            )
            last = dip.column


def position_axis(axes: Axes, view: PromptView) -> None:
    """Positions above the axes; the tokens are below the lowest ones."""
    axes.tick_params(axis="x", bottom=False, labelbottom=False, top=True, labeltop=True, pad=1)
    axes.spines["bottom"].set_visible(False)
    ticks = _position_ticks(view.positions)
    axes.set_xticks(ticks, [str(view.positions[t]) for t in ticks], fontsize=8, color=GREY)
    axes.text(
        1.005, 1.03, "position", transform=axes.transAxes, fontsize=8, color=GREY, va="bottom"
    )


def height_below(labels: dict[int, str]) -> float:
    """Inches for the upright tokens below the axes."""
    return max(0.5, 0.18 + 0.064 * max(len(text) for text in labels.values()))


def token_labels(view: PromptView) -> dict[int, str]:
    """By column: every token where there is room; else every n-th, its position before it."""
    columns = len(view.positions)
    step = -(-columns // MAX_TOKEN_LABELS)
    if not view.tokens:
        return {c: str(view.positions[c]) for c in _position_ticks(view.positions)}
    if step == 1:
        return {c: label(view.tokens[c]) for c in range(columns)}
    return {c: f"{view.positions[c]}  {label(view.tokens[c], 10)}" for c in range(0, columns, step)}


def token_axis(axes: Axes, view: PromptView, labels: dict[int, str]) -> None:
    axes.set_xlim(-0.5, len(view.positions) - 0.5)
    axes.set_xticks(list(labels), list(labels.values()), fontsize=8 if len(labels) > 40 else 9)
    axes.tick_params(axis="x", length=2, pad=2, rotation=90 if view.tokens else 0)
    if not view.tokens:
        axes.set_xlabel("position")
    for column, text in zip(labels, axes.get_xticklabels(), strict=True):
        text.set_parse_math(False)
        if view.separators[column]:
            text.set_color(VERMILION)
            text.set_fontweight("bold")
            if len(text.get_text()) <= 2:  # A lone full stop is hard to see.
                text.set_fontsize(13)


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    step = -(-len(names) // MAX_LAYER_LABELS)
    if len(names) > 16:
        step = max(step, 5 if len(names) <= 64 else 10)
    shown = range(0, len(names), step)
    axes.set_yticks(list(shown), [names[i] for i in shown], fontsize=8.5)
    axes.set_ylabel("layer")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=2)


def _head_axis(axes: Axes, heads: npt.NDArray[np.int32]) -> None:
    step = next(s for s in _ROUND_STEPS if len(heads) / s <= 17)
    shown = range(0, len(heads), step)
    axes.set_xticks(list(shown), [str(heads[i]) for i in shown], fontsize=8.5)
    axes.set_xlabel("head")


def _draw_utilization(axes: Axes, data: MeasureData) -> None:
    share = data.utilization
    rows = np.arange(len(share))
    axes.barh(rows, np.nan_to_num(share), height=0.72, color=BLUE, alpha=0.85, linewidth=0)
    top = float(np.nanmax(share)) if np.isfinite(share).any() else 1.0
    limit = min(1.0, 1.18 * top) if top > 0 else 1.0
    axes.set_xlim(0, max(limit, top))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    if len(share) <= 48:
        for row, value in zip(rows, share, strict=True):
            text = "–" if np.isnan(value) else f"{100 * value:.3g}"  # noqa: RUF001
            axes.text(
                float(np.nan_to_num(value)) + 0.008 * axes.get_xlim()[1],
                float(row),
                text,
                va="center",
                fontsize=7.5,
                color="#50565e",
            )
    axes.grid(axis="x", color="#e3e6ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("ESS / TSS")
    axes.set_title("Utilization by layer", loc="left", fontsize=10, fontweight="bold")


def _position_ticks(positions: npt.NDArray[np.int32]) -> list[int]:
    """Columns of round positions: at most about 17 of them."""
    span = int(positions[-1]) - int(positions[0]) + 1 if len(positions) else 1
    step = next(s for s in _ROUND_STEPS if span / s <= 17)
    columns = [c for c, position in enumerate(positions) if position % step == 0]
    if len(columns) >= min(6, len(positions)):
        return columns
    return list(range(0, len(positions), -(-len(positions) // 16)))


_ROUND_STEPS = [m * 10**e for e in range(12) for m in (1, 2, 5)]


def _short_number(value: float) -> str:
    return f"{value / 1e6:.4g} M" if abs(value) >= 1e6 else number(value)


def _color_map() -> Any:
    return mpl.colormaps["viridis"].with_extremes(bad="#eceef1")


def _color_bar(figure: Figure, image: Any, axes: Axes, text: str) -> None:
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    bar.ax.tick_params(length=2, labelsize=8)
    bar.set_label(text, fontsize=8.5)


def data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The browser's fonts draw the text; what matplotlib's own lack does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
