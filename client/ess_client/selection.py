"""Selections of layers, heads and positions: integers, lists, or strings of ranges and strides.

"0,4-7" is 0, 4, 5, 6, 7; "0-511:8" is 0, 8, ..., 504. Both ends of a range are included, as on the
wire. None selects everything.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ess_client.errors import InvalidArgument

IndexSpec = int | str | Iterable[int] | None
LayerSpec = int | str | Iterable[int | str] | None

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_LAYER_NAME = re.compile(r"\d{3,}(\.[a-z_]+)?")
MAX_INDEX = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """The integers first, first + stride, ... up to and including last."""

    first: int
    last: int
    stride: int = 1


def parse_indices(spec: IndexSpec, field: str) -> list[Range]:
    """Ranges of a selection; the empty list for None. `field` names it in errors."""
    if spec is None:
        return []
    if isinstance(spec, str):
        return [_parse_range(part, spec, field) for part in spec.split(",")]
    if isinstance(spec, Iterable):
        ranges = compress([_index(value, field) for value in spec])
    else:
        ranges = compress([_index(spec, field)])
    if not ranges:
        raise InvalidArgument(f"{field} selects nothing; leave it out to select everything")
    return ranges


def parse_layers(spec: LayerSpec) -> tuple[list[Range], list[str]]:
    """Ranges of layer indices and names of single operators ("007.attention")."""
    if spec is None:
        return [], []
    parts: list[int | str] = []
    if isinstance(spec, str):
        parts.extend(spec.split(","))
    elif isinstance(spec, Iterable):
        parts.extend(spec)
    else:
        parts.append(spec)
    indices: list[int] = []
    ranges: list[Range] = []
    names: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            indices.append(_index(part, "layers"))
        elif _LAYER_NAME.fullmatch(part.strip()):
            names.append(part.strip())
        else:
            ranges.append(_parse_range(part, part, "layers"))
    ranges += compress(indices)
    if not ranges and not names:
        raise InvalidArgument("layers selects nothing; leave it out to select everything")
    return ranges, names


def compress(indices: Iterable[int]) -> list[Range]:
    """Few ranges that cover the indices exactly."""
    values = sorted(set(indices))
    ranges: list[Range] = []
    start = 0
    while start < len(values):
        stop = start + 1
        stride = values[stop] - values[start] if stop < len(values) else 1
        while stop < len(values) and values[stop] - values[stop - 1] == stride:
            stop += 1
        if stop - start == 2 and stride > 1:  # Two distant values are no pattern.
            stop, stride = start + 1, 1
        ranges.append(Range(values[start], values[stop - 1], stride))
        start = stop
    return ranges


def indices_below(ranges: Sequence[Range], size: int) -> npt.NDArray[np.int64]:
    """The selected indices in [0, size), ascending; all of them when `ranges` is empty."""
    if not ranges:
        return np.arange(size, dtype=np.int64)
    parts = [np.arange(r.first, min(r.last + 1, size), r.stride, dtype=np.int64) for r in ranges]
    return np.unique(np.concatenate(parts))


def _index(value: object, field: str) -> int:
    try:
        index = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(f"{field} holds {value!r}, which is not an integer") from None
    if isinstance(value, bool) or not 0 <= index <= MAX_INDEX:
        raise InvalidArgument(f"{field} holds {value!r}; indices are integers from 0")
    return index


def _parse_range(part: str, whole: str, field: str) -> Range:
    match = _RANGE.fullmatch(part.strip())
    if match is None:
        raise InvalidArgument(f"{field} '{whole}': '{part}' is not like 5, 4-7 or 0-511:8")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    stride = 1 if match[3] is None else int(match[3])
    if last < first or stride < 1 or last > MAX_INDEX:
        raise InvalidArgument(f"{field} '{whole}': '{part}' needs first <= last and a stride >= 1")
    return Range(first, last, stride)
