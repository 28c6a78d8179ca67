"""The report: its page, its sentences and its pictures."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_profile, reduced

from ess_client import InvalidArgument, LayerResult, Profile, Prompt
from ess_client.report import render_report, write_report
from ess_client.report.dips import find_dips
from ess_client.report.tokens import is_separator, label


def pictures(page: str) -> list[str]:
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(data).decode() for data in found]


def with_values(profile: Profile, values: np.ndarray, tokens: tuple[str, ...]) -> Profile:
    """The profile with these ESS values for every head, and these tokens, in its one prompt."""
    layers = tuple(
        replace(
            layer,
            ess={
                m: np.broadcast_to(values, v.shape).astype(np.float32) for m, v in layer.ess.items()
            },
        )
        for layer in profile.layers
    )
    prompt = Prompt("turns", len(tokens), tuple(range(len(tokens))), tokens)
    return replace(profile, layers=layers, prompts=(prompt,))


@pytest.fixture
def dipping() -> Profile:
    """40 tokens at ESS 10, with dips to 6 at the separators, positions 12 and 25."""
    values = np.full(40, 10.0)
    values[0] = 0
    values[[12, 25]] = 6, 7
    tokens = tuple("." if i in (12, 25) else f" w{i}" for i in range(40))
    return with_values(make_profile((40,), ((0, 1),) * 3), values, tokens)


def test_the_page_needs_no_network_and_no_script(ragged: Profile, tmp_path: Path) -> None:
    write_report(ragged, tmp_path / "r.html")

    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_measure_has_a_picture_per_prompt_and_one_of_the_layers(ragged: Profile) -> None:
    page = render_report(ragged)

    drawn = pictures(page)
    assert len(drawn) == 2 * (2 + 1)  # The one-token prompt has nothing to draw.
    assert "ESS by head" in drawn[2]
    assert "Utilization by layer" in drawn[2]
    assert "total ESS" in drawn[0]
    assert ">t3<" in drawn[0]


def test_the_summary_has_the_aggregates_of_every_prompt(ragged: Profile) -> None:
    page = render_report(ragged)

    share = float(ragged.utilization(by="prompt").sel(measure="entropy", prompt="2"))
    assert f"{100 * share:.2f} %" in page
    average = float(ragged.average(by="prompt").sel(measure="entropy", prompt="0"))
    assert f"{average:.4g}" in page


def test_dips_are_named_with_token_position_and_size(dipping: Profile) -> None:
    page = render_report(dipping)

    assert "40 % at position 12 (“.”)" in page
    assert "30 % at position 25 (“.”)" in page
    assert "At the 2 separators" in page
    assert "35.0 % below" in page


def test_saturated_and_idle_layers_are_named() -> None:
    profile = make_profile((9,), ((0,), (0,)))
    full, idle = profile.layers
    growing = np.arange(9, dtype=np.float32)

    def scaled(layer: LayerResult, factor: float) -> LayerResult:
        return replace(
            layer, ess={m: (factor * growing).reshape(v.shape) for m, v in layer.ess.items()}
        )

    page = render_report(replace(profile, layers=(scaled(full, 1.0), scaled(idle, 0.01))))

    assert "Layer 000 is saturated" in page
    assert "Layer 001 is nearly idle" in page


def test_a_tolerance_below_the_noise_floor_is_a_warning() -> None:
    profile = make_profile((5,), ((0, 1),))
    noisy = replace(
        profile.layers[0],
        noise_floors=np.array([[2e-3, 1e-5]], np.float32),
        below_noise_floor={"tolerance:0.001": 1},
    )

    page = render_report(replace(profile, layers=(noisy,)))

    assert "1 of 2 heads below noise floor" in page
    assert "Warning: the tolerance 0.001 lies below the noise floor of 1 of 2" in page


def test_tokens_and_titles_cannot_inject_markup() -> None:
    profile = make_profile((5,), ((0,),))
    prompt = replace(profile.prompts[0], tokens=("<script>", "$x_1$", "\x00", "</svg>", "&"))

    page = render_report(replace(profile, prompts=(prompt,)), title="<script>alert(1)</script>")

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "$x_1$" in pictures(page)[0]


@pytest.mark.parametrize(
    "profile",
    [
        make_profile((1,), ((0,),)),
        make_profile((2,), ((0,),)),
        make_profile((600,), ((0,),), ("entropy",), positions=range(0, 600, 8)),
        make_profile((4,), (range(300),), ("frobenius_norm",)),
        make_profile((6,), ((0,), (1, 2)), ("singular_values:3", "entropy")),
        make_profile((5,) * 20, ((0,),), ("entropy",)),
        replace(make_profile((9,), ((0,),)), prompts=(Prompt("0", 9),)),
    ],
    ids=[
        "one token",
        "two tokens",
        "strided positions",
        "300 heads",
        "singular values",
        "20 prompts",
        "no tokens",
    ],
)
def test_unusual_profiles_make_a_page(profile: Profile) -> None:
    assert "</html>" in render_report(profile)


def test_the_same_profile_makes_the_same_page(ragged: Profile) -> None:
    assert render_report(ragged) == render_report(ragged)


def test_an_even_rise_and_fall_has_no_dips() -> None:
    positions = np.arange(60, dtype=np.int32)

    assert find_dips(np.minimum(positions, 60 - positions).astype(float), positions) == []


@pytest.mark.parametrize(
    ("token", "separates"),
    [
        (".", True),
        (" ?", True),
        ('."', True),
        ("\n\n", True),
        ("<|im_end|>", True),
        ("</s>", True),
        ("[SEP]", True),
        (" the", False),
        ("3.5", False),
        ("'", False),
        ("", False),
        (" ", False),
        ("[", False),
    ],
)
def test_separators_are_sentence_ends_line_breaks_and_special_tokens(
    token: str, separates: bool
) -> None:
    assert is_separator(token) is separates


def test_labels_are_short_and_visible() -> None:
    assert label(" the") == "the"
    assert label("\n") == "⏎"
    assert label(" ") == "␣"
    assert label("▁word") == "word"
    assert label("a" * 30) == "a" * 13 + "…"


@pytest.mark.parametrize("reduce", ["heads", "positions"])
def test_a_reduced_profile_is_refused_with_what_the_report_needs(
    ragged: Profile, tmp_path: Path, reduce: str
) -> None:
    with pytest.raises(InvalidArgument, match=rf'means over {reduce} \(reduce="{reduce}"\)'):
        write_report(reduced(ragged, reduce), tmp_path / "r.html")

    assert list(tmp_path.iterdir()) == []


def test_a_certified_profile_has_a_report(tmp_path: Path) -> None:
    write_report(make_profile(certify=True), tmp_path / "r.html")

    assert "certify True" in (tmp_path / "r.html").read_text(encoding="utf-8")
