"""Aggregates against plain loops over the definitions of docs/ess.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from synthetic import make_profile, reduced

from ess_client import InvalidArgument, Profile

SUBSETS = [
    kept
    for count in range(5)
    for kept in itertools.combinations(("layer", "prompt", "head", "position"), count)
]


def entries(profile: Profile, measure: str) -> Iterator[tuple[str, str, int, int, float, int, int]]:
    """(layer, prompt, head, position, ESS, TSS, channels) of every value that counts."""
    for layer in profile.layers:
        for p, prompt in enumerate(profile.prompts):
            for h, head in enumerate(layer.heads):
                for i, position in enumerate(profile.positions):
                    if 0 < position < prompt.length:
                        ess, tss = float(layer.ess[measure][p, h, i]), int(layer.tss[p, i])
                        yield (
                            layer.name,
                            prompt.id,
                            int(head),
                            int(position),
                            ess,
                            tss,
                            int(layer.channels[h]),
                        )


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def brute_force(
    profile: Profile, measure: str, kept: tuple[str, ...], weighted_mean: bool
) -> dict[tuple[object, ...], float]:
    """average (weighted_mean) or total, by dictionary and loops."""
    dims = ("layer", "prompt", "head", "position")
    by_head: dict[tuple[object, ...], list[tuple[float, int]]] = {}
    for *where, ess, _, channels in entries(profile, measure):
        key = tuple(w for d, w in zip(dims, where, strict=True) if d != "position" or d in kept)
        by_head.setdefault(key, []).append((ess, channels))
    cells: dict[tuple[object, ...], list[tuple[float, int]]] = {}
    for key, values in by_head.items():
        without_head = key if "head" in kept else key[:2] + key[3:]
        cells.setdefault(without_head, []).append((mean([e for e, _ in values]), values[0][1]))
    groups: dict[tuple[object, ...], list[float]] = {}
    for key, heads in cells.items():
        value = sum(m * c for m, c in heads)
        if weighted_mean:
            value /= sum(c for _, c in heads)
        group = tuple(w for d, w in zip(("layer", "prompt"), key, strict=False) if d in kept)
        groups.setdefault(group + key[2:], []).append(value)
    return {key: mean(values) for key, values in groups.items()}


def assert_equal(array: object, expected: dict[tuple[object, ...], float]) -> None:
    series = array.to_series() if array.ndim else None  # type: ignore[attr-defined]
    if series is None:
        assert float(array) == pytest.approx(expected[()], rel=1e-12)  # type: ignore[arg-type]
        return
    found = {k if isinstance(k, tuple) else (k,): v for k, v in series.dropna().items()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-12), key


@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(kept) or "nothing")
@pytest.mark.parametrize("weighted_mean", [True, False], ids=["average", "total"])
def test_average_and_total_equal_plain_loops(
    ragged: Profile, kept: tuple[str, ...], weighted_mean: bool
) -> None:
    method: Callable[..., object] = ragged.average if weighted_mean else ragged.total

    result = method(by=kept)

    for measure in ragged.measure_names:
        expected = brute_force(ragged, measure, kept, weighted_mean)
        assert_equal(result.sel(measure=measure, drop=True), expected)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(kept) or "nothing")
def test_utilization_is_the_ratio_of_sums(ragged: Profile, kept: tuple[str, ...]) -> None:
    result = ragged.utilization(by=kept)

    for measure in ragged.measure_names:
        sums: dict[tuple[object, ...], list[float]] = {}
        for *where, ess, tss, channels in entries(ragged, measure):
            dims = zip(("layer", "prompt", "head", "position"), where, strict=True)
            total = sums.setdefault(tuple(w for d, w in dims if d in kept), [0.0, 0.0])
            total[0] += channels * ess
            total[1] += channels * tss
        expected = {key: ess / tss for key, (ess, tss) in sums.items()}
        assert_equal(result.sel(measure=measure, drop=True), expected)


@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(kept) or "nothing")
@pytest.mark.parametrize("reduce", ["heads", "positions"])
@pytest.mark.parametrize("name", ["average", "total", "utilization", "total_by_position"])
def test_aggregates_of_a_reduced_profile_are_the_same_or_refused(
    ragged: Profile, kept: tuple[str, ...], reduce: str, name: str
) -> None:
    profile = reduced(ragged, reduce)
    needed = {*kept, "position"} if name == "total_by_position" else set(kept)

    if reduce.removesuffix("s") in needed:
        with pytest.raises(InvalidArgument, match=f"needs every {reduce.removesuffix('s')}"):
            getattr(profile, name)(by=kept)
        return

    np.testing.assert_allclose(
        getattr(profile, name)(by=kept), getattr(ragged, name)(by=kept), rtol=1e-6
    )


def test_total_by_position_averages_layers_and_the_prompts_that_reach_it(ragged: Profile) -> None:
    measure = "entropy"
    sums = {
        (layer.name, p, int(i)): float(layer.ess[measure][p, :, i] @ layer.channels)
        for layer in ragged.layers
        for p, prompt in enumerate(ragged.prompts)
        for i in range(1, prompt.length)
    }

    by_mean = ragged.total_by_position().sel(measure=measure)
    by_sum = ragged.total_by_position(layers="sum").sel(measure=measure)

    assert by_mean.coords["position"].values.tolist() == list(range(1, 9))
    for position in range(1, 9):
        cells = [value for (_, _, i), value in sums.items() if i == position]
        reached = len(cells) / 3
        assert float(by_mean.sel(position=position)) == pytest.approx(mean(cells), rel=1e-6)
        assert float(by_sum.sel(position=position)) == pytest.approx(sum(cells) / reached, rel=1e-6)


def test_total_is_the_average_times_the_channels_where_layers_agree() -> None:
    profile = make_profile(lengths=(6, 9), heads=((0, 1), (0, 1)))

    ratio = profile.total() / profile.average()

    np.testing.assert_allclose(ratio, 10)


def test_position_zero_and_one_token_prompts_do_not_count() -> None:
    profile = make_profile(lengths=(1, 4))
    for layer in profile.layers:
        layer.ess["entropy"][:, :, 0] = 1000

    assert float(profile.average().sel(measure="entropy")) < 4
    assert math.isnan(float(profile.average(by=["prompt"]).sel(measure="entropy", prompt="0")))


def test_a_profile_of_one_token_has_no_average() -> None:
    profile = make_profile(lengths=(1,))

    assert np.isnan(profile.average()).all()
    assert np.isnan(profile.utilization()).all()


def test_norms_have_no_utilization_and_singular_values_no_aggregates() -> None:
    profile = make_profile(measures=("spectral_norm", "entropy", "singular_values:3"))

    used = profile.utilization()

    assert used.coords["measure"].values.tolist() == ["spectral_norm", "entropy"]
    assert np.isnan(used.sel(measure="spectral_norm")).all()
    assert np.isfinite(used.sel(measure="entropy")).all()


def test_an_unknown_dimension_is_refused_with_the_known_ones(ragged: Profile) -> None:
    with pytest.raises(InvalidArgument, match="'channel'; the dimensions are layer, prompt"):
        ragged.average(by=["channel"])
