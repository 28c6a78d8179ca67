"""What a profile shows of its values."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import make_profile, reduced

from ess_client import InvalidArgument, Profile
from ess_client import profile as profile_module


def test_one_operator_is_an_array_with_the_models_head_indices() -> None:
    profile = make_profile(lengths=(3, 5), heads=((0, 2), (1, 3)))

    array = profile["001"]

    assert array.dims == ("measure", "prompt", "head", "position")
    assert array.coords["head"].values.tolist() == [1, 3]
    assert array.coords["measure"].values.tolist() == ["tolerance:0.001", "entropy"]
    assert np.isnan(array.sel(prompt="0", position=[3, 4])).all()
    assert np.isfinite(array.sel(prompt="1")).all()


def test_an_unknown_operator_is_a_key_error_with_the_names(ragged: Profile) -> None:
    with pytest.raises(KeyError, match="000, 001, 002"):
        ragged["7"]


def test_ess_holds_every_operator_and_nan_for_missing_heads(ragged: Profile) -> None:
    ess = ragged.ess

    assert ess.dims == ("measure", "layer", "prompt", "head", "position")
    assert np.isnan(ess.sel(layer="001", head=2)).all()
    for name in ragged:
        part = ess.sel(layer=name, head=ragged[name].coords["head"])
        np.testing.assert_array_equal(part.values, ragged[name].values)


def test_ess_above_the_limit_points_to_single_operators(
    ragged: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "MAX_DENSE_BYTES", 1000)

    with pytest.raises(InvalidArgument, match=r'profile\[NAME\].*profile\["000"\]'):
        _ = ragged.ess


def test_tss_and_channels_follow_heads_and_prompt_ends(ragged: Profile) -> None:
    assert ragged.tss.dims == ("layer", "prompt", "head", "position")
    assert ragged.tss.sel(layer="000", prompt="2", head=1).values.tolist() == list(range(9))
    assert np.isnan(ragged.tss.sel(layer="001", head=2)).all()
    assert np.isnan(ragged.tss.sel(prompt="0", position=5)).all()
    assert ragged.channels.sel(layer="001").values.tolist() == [4, 6, 0]


def test_tss_of_equal_heads_takes_no_memory_per_head() -> None:
    profile = make_profile(lengths=(50,), heads=(range(64),))

    assert profile.tss.shape == (1, 1, 64, 50)
    assert profile.tss.values.strides[2] == 0


def test_singular_values_have_a_last_axis() -> None:
    profile = make_profile(measures=("entropy", "singular_values:3"))

    array = profile["000"]

    assert array.dims[-1] == "index"
    assert array.sizes["index"] == 3
    assert np.isnan(array.sel(measure="entropy", index=[1, 2])).all()
    assert profile["000", "singular_values:3"].dims == ("prompt", "head", "position", "index")
    assert profile["000", "entropy"].dims == ("prompt", "head", "position")
    assert profile.ess.sizes["index"] == 3


def test_the_table_has_one_row_per_present_value(ragged: Profile) -> None:
    table = ragged.to_dataframe()

    present = sum(int(np.isfinite(ragged[name]).sum()) for name in ragged)
    assert len(table) == present
    assert list(table.columns) == [
        "measure",
        "layer",
        "prompt",
        "head",
        "position",
        "token",
        "value",
        "tss",
    ]
    row = table[
        (table.measure == "entropy")
        & (table.layer == "002")
        & (table.prompt == "2")
        & (table["head"] == 1)
        & (table.position == 8)
    ]
    expected = ragged["002", "entropy"].sel(prompt="2", head=1, position=8)
    assert row.value.item() == pytest.approx(float(expected))
    assert row.token.item() == "t8"
    assert row.tss.item() == 8


@pytest.mark.parametrize(
    ("reduce", "axis", "columns"),
    [
        ("heads", "position", ["position", "token", "value", "tss", "certain"]),
        ("positions", "head", ["head", "value", "certain"]),
    ],
)
def test_a_reduced_profile_lacks_the_dimension(reduce: str, axis: str, columns: list[str]) -> None:
    profile = reduced(make_profile((5, 1, 9), ((0, 1, 2), (0, 2)), certify=True), reduce)

    assert profile["001"].dims == ("measure", "prompt", axis)
    assert profile["001", "entropy"].dims == ("prompt", axis)
    assert profile.ess.dims == ("measure", "layer", "prompt", axis)
    assert profile.certain is not None
    assert profile.certain.dims == profile.ess.dims
    np.testing.assert_array_equal(profile.ess.sel(layer="000").values, profile["000"].values)
    table = profile.to_dataframe()
    assert list(table.columns) == ["measure", "layer", "prompt", *columns]
    assert len(table) == sum(int(np.isfinite(profile[name]).sum()) for name in profile)
    assert "average" in repr(profile)


def test_certain_is_there_with_certify_only(ragged: Profile) -> None:
    assert ragged.certain is None

    certified = make_profile(heads=((0, 1), (0, 2)), certify=True)

    assert certified.certain is not None
    assert certified.certain.dtype == bool
    assert not certified.certain.sel(layer="001", head=1).any()
    where = certified.certain.sel(layer="001", head=[0, 2], measure="entropy").values
    np.testing.assert_array_equal(where, certified.layers[1].certain["entropy"])


def test_the_repr_says_what_was_measured(ragged: Profile) -> None:
    text = repr(ragged)

    assert "Profile of tiny: 3 operators, 3 prompts of 1-9 tokens" in text
    assert "tolerance:0.001: average " in text
    assert "utilization " in text
