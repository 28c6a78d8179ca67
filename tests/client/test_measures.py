"""Spelling of measures."""

from __future__ import annotations

import pytest

from ess_client import InvalidArgument, canonical_measure
from ess_client._requests import measure_from_message, measure_message
from ess_client.measures import parse_measure, parse_measures, shortest

EVERY_KIND = [
    "tolerance:0.001",
    "relative:0.5",
    "head_relative:1e-06",
    "entropy",
    "spectral_norm",
    "frobenius_norm",
    "causal",
    "singular_values:8",
]


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("tolerance:1e-3", "tolerance:0.001"),
        ("tolerance:1E-5", "tolerance:1e-05"),
        (" relative:.5 ", "relative:0.5"),
        ("tolerance:123456789", "tolerance:123456789"),
        ("tolerance:0.30000000000000004", "tolerance:0.30000000000000004"),
        ("singular_values:08", "singular_values:8"),
    ],
)
def test_any_spelling_becomes_the_canonical_one(spelling: str, canonical: str) -> None:
    assert canonical_measure(spelling) == canonical


@pytest.mark.parametrize("value", [1e-3, 0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**70])
def test_the_shortest_digits_parse_back_to_the_same_double(value: float) -> None:
    assert float(shortest(value)) == value


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("rank", "unknown measure 'rank'; the measures are tolerance:VALUE"),
        ("tolerance:0", "above 0"),
        ("tolerance:-1", "above 0"),
        ("tolerance:nan", "finite"),
        ("tolerance:inf", "finite"),
        ("tolerance", "needs a number"),
        ("relative:1", "below 1"),
        ("head_relative:2", "below 1"),
        ("entropy:1", "takes no value"),
        ("singular_values:0", "from 1 to 1024"),
        ("singular_values:1025", "from 1 to 1024"),
        ("singular_values:1.5", "from 1 to 1024"),
    ],
)
def test_a_bad_measure_is_refused_with_its_limit(bad: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason.replace("(", r"\(")):
        parse_measure(bad)


def test_two_spellings_of_one_measure_are_a_duplicate() -> None:
    with pytest.raises(InvalidArgument, match="given twice"):
        parse_measures(["tolerance:1e-3", "tolerance:0.001"])


@pytest.mark.parametrize("text", EVERY_KIND)
def test_the_wire_keeps_every_measure(text: str) -> None:
    message = measure_message(parse_measure(text))

    assert str(measure_from_message(message)) == text
