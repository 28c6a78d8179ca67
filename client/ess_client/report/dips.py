"""Dips of a curve: positions that lie well below what comes shortly before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

REACH = 4  # Positions that count as shortly before and after.
MIN_DEPTH = 0.05
MAX_DIPS = 6


@dataclass(frozen=True)
class Dip:
    """depth: how far below the mean of its two sides, as a fraction of it."""

    column: int
    position: int
    depth: float


def depths(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Depth of every column; NaN within REACH columns of an end, where a side is short.

    A side is the median of its REACH columns. The mean of both sides follows a curve that rises or
    falls evenly, whose depth is 0; below 0 the value stands out upwards.
    """
    result = np.full(len(values), np.nan)
    for column in range(REACH, len(values) - REACH):
        before = float(np.median(values[column - REACH : column]))
        after = float(np.median(values[column + 1 : column + 1 + REACH]))
        level = (before + after) / 2
        if level > 0:
            result[column] = 1 - values[column] / level
    return result


def find_dips(
    values: npt.NDArray[np.float64], positions: npt.NDArray[np.int32], count: int = MAX_DIPS
) -> list[Dip]:
    """Local minima at least MIN_DEPTH deep, deepest first, REACH / 2 columns apart."""
    depth = depths(values)
    found: list[Dip] = []
    for column in np.argsort(-np.nan_to_num(depth, nan=-np.inf), kind="stable"):
        if not depth[column] >= MIN_DEPTH or len(found) == count:
            break
        near = values[max(0, column - 1) : column + 2]
        apart = all(abs(column - dip.column) > REACH // 2 for dip in found)
        if apart and values[column] <= near.min():
            found.append(Dip(int(column), int(positions[column]), float(depth[column])))
    return found
