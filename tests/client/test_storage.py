"""Saved profiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from synthetic import make_profile, reduced

from ess_client import DataLoss, Profile, load_profile


def assert_same(first: Profile, second: Profile) -> None:
    assert first.model == second.model
    assert first.measures == second.measures
    assert first.prompts == second.prompts
    assert first.routes == second.routes
    assert first.versions == second.versions
    assert first.options == second.options
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.noise_floors, second.noise_floors)
    np.testing.assert_array_equal(first.channels, second.channels)
    np.testing.assert_array_equal(first.tss, second.tss)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert (first.certain is None) == (second.certain is None)
    if first.certain is not None and second.certain is not None:
        np.testing.assert_array_equal(first.certain, second.certain)


@pytest.mark.parametrize("measures", [("entropy",), ("tolerance:1e-05", "singular_values:4")])
def test_a_saved_profile_loads_with_the_same_contents(
    tmp_path: Path, measures: tuple[str, ...]
) -> None:
    profile = make_profile((5, 1, 9), ((0, 2), (0, 1, 2)), measures, positions=(0, 2, 3, 8))

    profile.save(tmp_path / "p.safetensors")

    assert_same(profile, load_profile(tmp_path / "p.safetensors"))


@pytest.mark.parametrize("reduce", ["heads", "positions"])
@pytest.mark.parametrize("measures", [("entropy",), ("tolerance:1e-05", "singular_values:4")])
def test_a_reduced_and_certified_profile_loads_with_the_same_contents(
    tmp_path: Path, measures: tuple[str, ...], reduce: str
) -> None:
    full = make_profile((5, 1, 9), ((0, 2), (0, 1, 2)), measures, certify=True)
    profile = reduced(full, reduce)

    profile.save(tmp_path / "p.safetensors")

    assert_same(profile, load_profile(tmp_path / "p.safetensors"))
    tensors = load_file(tmp_path / "p.safetensors")
    shape = (3, 9) if reduce == "heads" else (3, 2)
    depth = (4,) if len(measures) == 2 else ()
    assert tensors[f"layer.000/ess/{profile.measure_names[-1]}"].shape == shape + depth
    assert tensors[f"layer.000/certain/{profile.measure_names[-1]}"].shape == shape + depth


def test_the_file_has_the_promised_tensors(tmp_path: Path, ragged: Profile) -> None:
    ragged.save(tmp_path / "p.safetensors")

    tensors = load_file(tmp_path / "p.safetensors")

    shapes = {name: (str(t.dtype), t.shape) for name, t in tensors.items() if "00" in name[:10]}
    assert shapes["layer.001/ess/tolerance:0.001"] == ("float32", (3, 2, 9))
    assert shapes["layer.001/tss"] == ("int32", (3, 9))
    assert shapes["layer.001/heads"] == ("int32", (2,))
    assert shapes["layer.001/channels"] == ("int32", (2,))
    assert tensors["layer.000/tss"][1].tolist() == [0] + [-1] * 8
    assert tensors["lengths"].tolist() == [5, 1, 9]
    assert tensors["token_ids"][0].tolist() == [100, 101, 102, 103, 104, -1, -1, -1, -1]
    assert tensors["token_ids"].dtype == np.int64
    with safe_open(tmp_path / "p.safetensors", framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
    assert manifest["schema"] == 1
    assert manifest["prompts"][1] == {"id": "1", "tokens": ["t0"]}


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    make_profile(seed=5).save(tmp_path / "a.safetensors")
    make_profile(seed=5).save(tmp_path / "b.safetensors")
    load_profile(tmp_path / "a.safetensors").save(tmp_path / "c.safetensors")

    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()
    assert first == (tmp_path / "c.safetensors").read_bytes()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, ragged: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"old")

    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)

    with pytest.raises(OSError, match="disk full"):
        ragged.save(path)

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("contents", [b"", b"not safetensors", b"\xff" * 64])
def test_a_file_that_is_no_profile_is_data_loss(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(contents)

    with pytest.raises(DataLoss, match=r"x\.safetensors"):
        load_profile(tmp_path / "x.safetensors")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"positions": np.zeros(1, np.int32)}, path, {"manifest": json.dumps({"schema": 3})})

    with pytest.raises(DataLoss, match="schema 3; this client reads 1 and 2"):
        load_profile(path)


def test_a_large_result_whose_lists_lie_in_tensors_is_read(tmp_path: Path, ragged: Profile) -> None:
    path = tmp_path / "x.safetensors"
    ragged.save(path)
    with safe_open(path, framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    prompts = json.dumps(manifest.pop("prompts")).encode()
    tensors["prompts"] = np.frombuffer(prompts, np.uint8)
    for layer in manifest["layers"]:
        floors = layer.pop("noise_floors")
        tensors[f"layer.{layer['name']}/noise_floors"] = np.array(floors, np.float32)
    save_file(tensors, path, {"manifest": json.dumps(manifest | {"schema": 2})})

    assert_same(load_profile(path), ragged)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_profile(tmp_path / "none.safetensors")
