"""The aggregates that pictures and text of a report share, computed once per profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from ess_client.measures import parse_measure
from ess_client.profile import Profile
from ess_client.report.dips import Dip, find_dips
from ess_client.report.tokens import is_separator

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PromptView:
    """What is drawn of one prompt: its positions from 1 on, their tokens, and the separators."""

    index: int
    id: str
    length: int
    positions: npt.NDArray[np.int32]
    tokens: tuple[str, ...]  # At these positions; empty when there are none.
    separators: npt.NDArray[np.bool_]


class MeasureData:
    """Aggregates of one measure."""

    def __init__(self, report: ReportData, measure: str) -> None:
        self.measure = measure
        self.layer_names = report.profile.layer_names
        self._cells = report.cells.sel(measure=measure).values  # [layer, prompt, position]
        self._totals = report.totals.sel(measure=measure).values  # [prompt, position]
        by_head = report.by_head.sel(measure=measure)
        self.layer_by_head: Array = by_head.values
        self.heads: npt.NDArray[np.int32] = by_head.coords["head"].values
        self.utilization: Array = report.utilization.sel(measure=measure).values
        self.average = float(report.average.sel(measure=measure))
        self.total = float(report.total.sel(measure=measure))
        self.used = float(report.used.sel(measure=measure))

    @property
    def has_utilization(self) -> bool:
        return bool(np.isfinite(self.utilization).any())

    @property
    def mean_label(self) -> str:
        return "mean ESS" if self._is_state_size else "mean"

    @property
    def total_label(self) -> str:
        return "total ESS" if self._is_state_size else "total"

    @property
    def head_title(self) -> str:
        return "ESS by head" if self._is_state_size else "Mean by head"

    @property
    def _is_state_size(self) -> bool:
        return parse_measure(self.measure).is_state_size

    def layer_by_position(self, view: PromptView) -> Array:
        """Channel-weighted mean over heads, [layers, positions of the view]."""
        cells: Array = self._cells[:, view.index, : len(view.positions)]
        return cells

    def total_by_position(self, view: PromptView) -> Array:
        """Sum over channels, mean over layers, [positions of the view]."""
        totals: Array = self._totals[view.index, : len(view.positions)]
        return totals

    def dips(self, view: PromptView) -> list[Dip]:
        """The deepest dips of the total, deepest first."""
        return find_dips(self.total_by_position(view), view.positions)


class ReportData:
    """Aggregates of a profile, and its prompts as they are drawn."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.average = profile.average()
        self.total = profile.total()
        self.used = profile.utilization(by=())
        self.cells: xr.DataArray = profile.average(by=["layer", "prompt", "position"])
        self.totals: xr.DataArray = profile.total_by_position(by=["prompt"])
        self.by_head: xr.DataArray = profile.average(by=["layer", "head"])
        self.utilization: xr.DataArray = profile.utilization()
        self.measures = [
            MeasureData(self, str(name)) for name in self.average.coords["measure"].values
        ]

    def view(self, index: int) -> PromptView:
        prompt = self.profile.prompts[index]
        inner = self.profile.positions[self.profile.positions > 0]
        positions = inner[inner < prompt.length]
        tokens = tuple(prompt.tokens[i] for i in positions) if prompt.tokens else ()
        separators = np.array([is_separator(t) for t in tokens], bool)
        if not tokens:
            separators = np.zeros(len(positions), bool)
        return PromptView(index, prompt.id, prompt.length, positions, tokens, separators)
