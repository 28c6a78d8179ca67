"""Profiles in safetensors files.

    layer.NAME/ess/MEASURE   float32 [prompts, heads, positions] (K last for singular_values), NaN;
                             without the axis that options.reduce of the manifest names
    layer.NAME/certain/MEASURE   bool, the same shape; with certify only
    layer.NAME/tss           int32 [prompts, positions], -1 past a prompt's end
    layer.NAME/heads         int32 [heads], the model's indices
    layer.NAME/channels      int32 [heads]
    positions, lengths       int32
    token_ids                int64 [prompts, longest], -1 padded

The header's metadata has one entry, `manifest`: JSON with sorted keys and `schema: 1`. It holds no
clock times and no host names: the same work gives the same bytes.

Results of large jobs have `schema: 2`: what would make the manifest too large for a header lies in
tensors, `prompts` (uint8, the JSON of the manifest's list) and `layer.NAME/noise_floors` (float32
[prompts, heads]).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ess_client.errors import DataLoss
from ess_client.profile import LayerResult, Profile, Prompt, measures_from_names

SCHEMA = 1
LARGE_SCHEMA = 2


def save_profile(profile: Profile, path: str | PathLike[str]) -> None:
    """Writes the file atomically: a reader sees the old one or the whole new one."""
    tensors: dict[str, npt.NDArray[Any]] = {
        "positions": profile.positions,
        "lengths": np.array([prompt.length for prompt in profile.prompts], np.int32),
        "token_ids": _padded_token_ids(profile),
    }
    for layer in profile.layers:
        prefix = f"layer.{layer.name}/"
        tensors |= {f"{prefix}ess/{measure}": values for measure, values in layer.ess.items()}
        tensors |= {f"{prefix}certain/{measure}": v for measure, v in layer.certain.items()}
        tensors |= {f"{prefix}tss": layer.tss, f"{prefix}heads": layer.heads}
        tensors[f"{prefix}channels"] = layer.channels
    manifest = json.dumps(_manifest(profile), sort_keys=True, ensure_ascii=False)
    with written_atomically(path) as temporary:
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        save_file(contiguous, temporary, {"manifest": manifest})


def load_profile(path: str | PathLike[str]) -> Profile:
    """Reads a saved profile. Raises OSError, or DataLoss for a file that is not one."""
    name = Path(path).name
    try:
        with safe_open(path, framework="numpy") as file:
            manifest = json.loads((file.metadata() or {})["manifest"])
            if manifest["schema"] not in (SCHEMA, LARGE_SCHEMA):
                raise DataLoss(
                    f"{name}: schema {manifest['schema']}; this client reads {SCHEMA} and "
                    f"{LARGE_SCHEMA}"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if manifest["schema"] == LARGE_SCHEMA:
            manifest["prompts"] = json.loads(tensors["prompts"].tobytes())
        return _profile(manifest, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataLoss):
            raise
        raise DataLoss(f"{name} is not a saved profile: {error}") from error


@contextmanager
def written_atomically(path: str | PathLike[str]) -> Iterator[Path]:
    """A path to write to, in the folder of `path`; renamed to it at the end, removed on error."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _manifest(profile: Profile) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": dict(profile.model),
        "measures": profile.measure_names,
        "options": dict(profile.options),
        "versions": dict(profile.versions),
        "prompts": [{"id": prompt.id, "tokens": prompt.tokens} for prompt in profile.prompts],
        "layers": [
            {
                "name": layer.name,
                "layer_index": layer.layer_index,
                "operator_class": layer.operator_class,
                "routes": dict(layer.routes),
                "below_noise_floor": dict(layer.below_noise_floor),
                "noise_floors": _numbers(layer.noise_floors),
            }
            for layer in profile.layers
        ],
    }


def _numbers(values: npt.NDArray[np.float32]) -> list[list[float | None]]:
    """Floats that JSON can hold: an absent one is null."""
    return [[None if np.isnan(x) else float(x) for x in row] for row in values]


def _padded_token_ids(profile: Profile) -> npt.NDArray[np.int64]:
    longest = max(prompt.length for prompt in profile.prompts)
    padded = np.full((len(profile.prompts), longest), -1, np.int64)
    for row, prompt in zip(padded, profile.prompts, strict=True):
        row[: len(prompt.token_ids)] = prompt.token_ids
    return padded


def _profile(manifest: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> Profile:
    prompts = []
    for entry, ids, length in zip(
        manifest["prompts"], tensors["token_ids"], tensors["lengths"], strict=True
    ):
        known = tuple(int(i) for i in ids[:length] if i >= 0)
        prompts.append(Prompt(entry["id"], int(length), known, tuple(entry["tokens"])))
    return Profile(
        model=manifest["model"],
        measures=measures_from_names(manifest["measures"]),
        prompts=tuple(prompts),
        positions=tensors["positions"],
        layers=tuple(_layer(entry, tensors, manifest) for entry in manifest["layers"]),
        options=manifest["options"],
        versions=manifest["versions"],
    )


def _layer(
    entry: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], manifest: dict[str, Any]
) -> LayerResult:
    prefix, measures = f"layer.{entry['name']}/", manifest["measures"]
    certified = measures if "certify" in manifest["options"] else []
    heads = tensors[f"{prefix}heads"]
    if (floors := tensors.get(f"{prefix}noise_floors")) is None:
        floors = np.array(entry["noise_floors"], np.float32)
    return LayerResult(
        name=entry["name"],
        layer_index=entry["layer_index"],
        operator_class=entry["operator_class"],
        heads=heads,
        channels=tensors[f"{prefix}channels"],
        tss=tensors[f"{prefix}tss"],
        ess={measure: tensors[f"{prefix}ess/{measure}"] for measure in measures},
        noise_floors=floors.reshape(-1, len(heads)),
        routes=entry["routes"],
        below_noise_floor=entry["below_noise_floor"],
        certain={measure: tensors[f"{prefix}certain/{measure}"] for measure in certified},
    )
