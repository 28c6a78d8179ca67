"""The page that compares several profiles."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import make_profile, reduced
from test_report import pictures

from ess_client import InvalidArgument, Profile
from ess_client.report import render_comparison, render_report, write_comparison


def named(profile: Profile, name: str, **fields: str) -> Profile:
    return replace(profile, model={**profile.model, "name": name, **fields})


@pytest.fixture
def profiles() -> list[Profile]:
    """Models of 3 and 5 layers; the second has random weights and one prompt more."""
    trained = make_profile((9, 6), ((0, 1),) * 3, seed=1)
    random = make_profile((9, 6, 4), ((0,),) * 5, seed=2)
    return [named(trained, "trained"), named(random, "random", random_init="4")]


def test_the_page_needs_no_network_and_no_script(profiles: list[Profile], tmp_path: Path) -> None:
    write_comparison(profiles, tmp_path / "r.html")

    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "<script" not in page


def test_every_measure_has_a_picture_per_common_prompt_and_one_by_depth(
    profiles: list[Profile],
) -> None:
    page = render_comparison(profiles)

    drawn = pictures(page)
    assert len(drawn) == 2 * (2 + 1)
    assert all(">trained<" in picture and ">random<" in picture for picture in drawn)
    assert "ESS / TSS" in drawn[0]
    assert ">t3<" in drawn[0]
    assert ">depth<" in drawn[2]
    assert "Only the prompts that all profiles have count:\n0, 1." in page


def test_the_summary_has_the_aggregates_of_the_common_prompts(profiles: list[Profile]) -> None:
    page = render_comparison(profiles)

    common = replace(
        profiles[1],
        prompts=profiles[1].prompts[:2],
        layers=tuple(
            replace(layer, ess={m: v[:2] for m, v in layer.ess.items()}, tss=layer.tss[:2])
            for layer in profiles[1].layers
        ),
    )
    average = float(common.average().sel(measure="entropy"))
    share = float(common.utilization(by=()).sel(measure="entropy"))
    assert f"<td>{average:.4g}</td>" in page
    assert f"<td>{100 * share:.2f} %</td>" in page
    assert "random, seed 4" in page
    assert "checkpoint" in page
    assert "Mean per channel, from the largest: " in page


def test_the_same_name_twice_is_numbered(profiles: list[Profile]) -> None:
    page = render_comparison([profiles[0], profiles[0]])

    assert "trained (1) and trained (2)" in page


def test_measures_that_are_no_state_size_have_no_utilization() -> None:
    profile = make_profile((9,), ((0, 1),), ("frobenius_norm",))

    page = render_comparison([profile, profile])

    assert "ESS / TSS" not in pictures(page)[0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (make_profile((9, 6), ((0,),), ("spectral_norm",)), "no measure in common"),
        (make_profile((9, 5), ((0,),)), "prompt 1 has 5 and 6 tokens"),
        (make_profile((9, 6), ((0,),), positions=range(0, 9, 2)), "different positions"),
        (reduced(make_profile((9, 6), ((0,),)), "heads"), "means over heads"),
    ],
    ids=["measures", "lengths", "positions", "reduced"],
)
def test_profiles_that_cannot_be_compared_say_why(
    profiles: list[Profile], changed: Profile, reason: str
) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        render_comparison([profiles[0], changed])


def test_prompts_with_other_ids_cannot_be_compared(profiles: list[Profile]) -> None:
    prompts = tuple(replace(prompt, id=f"x{prompt.id}") for prompt in profiles[0].prompts)

    with pytest.raises(InvalidArgument, match="no prompt id in common"):
        render_comparison([profiles[0], replace(profiles[0], prompts=prompts)])


def test_one_profile_or_too_many_are_no_comparison(profiles: list[Profile]) -> None:
    for count in (1, 7):
        with pytest.raises(InvalidArgument, match=f"2 to 6 profiles; found {count}"):
            render_comparison(profiles[:1] * count)


def test_separators_are_compared_where_there_are_some(profiles: list[Profile]) -> None:
    values = np.full(40, 10.0)
    values[[12, 25]] = 6

    def with_dips(factor: float) -> Profile:
        profile = make_profile((40,), ((0,),), ("entropy",))
        tokens = tuple("." if i in (12, 25) else "w" for i in range(40))
        curve = np.where(values < 10, 10 - factor * 4, 10).astype(np.float32)
        layer = replace(profile.layers[0], ess={"entropy": curve.reshape(1, 1, 40)})
        prompt = replace(profile.prompts[0], tokens=tokens)
        return replace(profile, layers=(layer,), prompts=(prompt,))

    page = render_comparison([named(with_dips(1), "deep"), named(with_dips(0), "flat")])

    assert "on average: 40.0 % below in deep and level in flat." in page


def test_a_report_says_that_weights_and_inputs_were_drawn(profiles: list[Profile]) -> None:
    options: dict[str, Any] = {"gaussian": {"count": 3, "length": 9, "seed": 5}}

    page = render_report(replace(profiles[1], options=options))

    assert "random, seed 4" in page
    assert "gaussian count=3 length=9 seed=5" in page
