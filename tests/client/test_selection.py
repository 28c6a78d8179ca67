"""Selections of layers, heads and positions."""

from __future__ import annotations

import numpy as np
import pytest

from ess_client import InvalidArgument
from ess_client.selection import Range, compress, indices_below, parse_indices, parse_layers


@pytest.mark.parametrize(
    ("spec", "ranges"),
    [
        (None, []),
        (5, [Range(5, 5)]),
        (np.int64(5), [Range(5, 5)]),
        ([0, 1, 2, 7], [Range(0, 2), Range(7, 7)]),
        (range(0, 512, 8), [Range(0, 504, 8)]),
        ("0,4-7", [Range(0, 0), Range(4, 7)]),
        ("0-511:8", [Range(0, 511, 8)]),
        (" 3 , 5", [Range(3, 3), Range(5, 5)]),
    ],
)
def test_a_selection_becomes_ranges(spec: object, ranges: list[Range]) -> None:
    assert parse_indices(spec, "positions") == ranges


@pytest.mark.parametrize("spec", ["", "a", "3-", "7-4", "0-9:0", "1.5", -1, [-1], [1.5], [], True])
def test_a_malformed_selection_is_refused_naming_the_field(spec: object) -> None:
    with pytest.raises(InvalidArgument, match="heads"):
        parse_indices(spec, "heads")


def test_layers_are_indices_or_names() -> None:
    assert parse_layers("0,4-7,007.attention") == ([Range(0, 0), Range(4, 7)], ["007.attention"])
    assert parse_layers([3, "004"]) == ([Range(3, 3)], ["004"])


def test_compressed_indices_are_exactly_the_indices() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        indices = np.flatnonzero(random.random(40) < random.random())
        ranges = compress(int(i) for i in indices)
        covered = [i for r in ranges for i in range(r.first, r.last + 1, r.stride)]
        assert sorted(covered) == indices.tolist()


def test_ranges_beyond_the_end_select_what_exists() -> None:
    assert indices_below([Range(6, 100, 2), Range(7, 8)], 10).tolist() == [6, 7, 8]
    assert indices_below([], 3).tolist() == [0, 1, 2]
