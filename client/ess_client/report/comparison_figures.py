"""Pictures of several profiles beside one another, in the style of figures.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ess_client._text import number
from ess_client.report.data import PromptView
from ess_client.report.figures import (
    BLUE,
    GREY,
    MAX_TOKEN_LABELS,
    STYLE,
    VERMILION,
    WIDTH,
    data_uri,
    height_below,
    position_axis,
    token_axis,
    token_labels,
)

# Okabe and Ito; the kind of line tells them apart without colour.
COLORS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 3)), (0, (9, 2)))


@dataclass(frozen=True, eq=False)
class Curves:
    """One model's values along an axis."""

    label: str
    color: str
    average: npt.NDArray[np.float64]
    utilization: npt.NDArray[np.float64] | None  # None for measures that are no state-size.


def prompt_figure(view: PromptView, models: list[Curves]) -> str:
    """Mean per channel by position over utilization by position; both share the tokens below."""
    with mpl.rc_context(STYLE):
        labels = token_labels(view)
        below = height_below(labels)
        rows = 1 if models[0].utilization is None else 2
        figure = Figure(figsize=(WIDTH, 1.9 * rows + below + 0.5))
        grid = figure.add_gridspec(
            rows,
            1,
            left=0.075,
            right=0.945,
            top=1 - 0.42 / figure.get_figheight(),
            bottom=below / figure.get_figheight(),
            hspace=0.1,
        )
        upper = figure.add_subplot(grid[0, 0])
        _draw(upper, models, lambda model: model.average)
        upper.set_ylabel("mean ESS" if rows == 2 else "mean")
        position_axis(upper, view)
        axes = [upper]
        if rows == 2:
            axes.append(figure.add_subplot(grid[1, 0]))
            _draw(axes[1], models, lambda model: model.utilization)
            _as_share(axes[1])
        for each in axes:
            each.set_xlim(-0.5, len(view.positions) - 0.5)
            for column in np.flatnonzero(view.separators).tolist():
                each.axvline(column, color=GREY, linewidth=0.7, alpha=0.55, zorder=1)
        if rows == 1:
            upper.tick_params(axis="x", bottom=True, labelbottom=True, top=False, labeltop=False)
        token_axis(axes[-1], view, labels)
        _legend(figure, models)
        return data_uri(figure)


def depth_figure(models: list[Curves]) -> str:
    """Mean per channel, and utilization, of each operator by its relative depth."""
    with mpl.rc_context(STYLE):
        columns = 1 if models[0].utilization is None else 2
        figure = Figure(figsize=(WIDTH, 3.1))
        grid = figure.add_gridspec(
            1, columns, left=0.075, right=0.97, top=0.86, bottom=0.17, wspace=0.16
        )
        left = figure.add_subplot(grid[0, 0])
        _draw(left, models, lambda model: model.average, by_depth=True)
        left.set_ylabel("mean ESS" if columns == 2 else "mean")
        axes = [left]
        if columns == 2:
            axes.append(figure.add_subplot(grid[0, 1]))
            _draw(axes[1], models, lambda model: model.utilization, by_depth=True)
            _as_share(axes[1])
        for each in axes:
            each.set_xlim(-0.02, 1.02)
            each.set_xlabel("depth")
        _legend(figure, models)
        return data_uri(figure)


def _draw(
    axes: Axes,
    models: list[Curves],
    values_of: Callable[[Curves], npt.NDArray[np.float64] | None],
    by_depth: bool = False,
) -> None:
    """The curves from 0 on; on a logarithmic axis where the models lie far apart."""
    drawn = [(model, values_of(model)) for model in models]
    levels = []
    for (model, values), line in zip(drawn, _LINES, strict=False):
        assert values is not None
        x = np.linspace(0, 1, len(values)) if by_depth else np.arange(len(values))
        few = len(values) <= MAX_TOKEN_LABELS
        axes.plot(
            x,
            values,
            color=model.color,
            linestyle=line,
            linewidth=1.6 if few else 1.1,
            marker="o" if few else None,
            markersize=2.6,
            label=model.label,
            zorder=3,
        )
        levels.append(float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0)
    if min(levels) > 0 and max(levels) > 12 * min(levels):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.6)
    axes.set_axisbelow(True)


def _as_share(axes: Axes) -> None:
    axes.set_ylabel("ESS / TSS")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _legend(figure: Figure, models: list[Curves]) -> None:
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.068, 1.0),
        ncols=len(models),
        frameon=False,
        fontsize=9,
        handlelength=3,
        columnspacing=2,
    )
