"""Profile: the ESS of every mixing operator of a model, for a batch of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ess_client import aggregates
from ess_client.errors import InvalidArgument
from ess_client.measures import Measure, canonical_measure, parse_measure

if TYPE_CHECKING:
    import pandas as pd

MAX_DENSE_BYTES = 4 << 30

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prompt:
    """One prompt. `token_ids` and `tokens` are empty where there are none (Gaussian inputs)."""

    id: str
    length: int
    token_ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LayerResult:
    """One mixing operator's results. P prompts, H selected heads, I selected positions.

    ess[measure] float32 [P, H, I] (singular_values: [P, H, I, K]), NaN past a prompt's end. A
    profile reduced over heads has [P, I], one reduced over positions [P, H].
    tss int32 [P, I], -1 past a prompt's end. heads, channels int32 [H]. noise_floors [P, H].
    routes[measure]: how it was computed. below_noise_floor[measure]: (prompt, head) pairs whose
    tolerance lies below their noise floor. certain[measure]: as ess, with certify; False where
    there is no value.
    """

    name: str
    layer_index: int
    operator_class: str
    heads: IntArray
    channels: IntArray
    tss: IntArray
    ess: Mapping[str, FloatArray]
    noise_floors: FloatArray
    routes: Mapping[str, str] = field(default_factory=dict)
    below_noise_floor: Mapping[str, int] = field(default_factory=dict)
    certain: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


def kept_axes(reduce: str | None) -> tuple[str, ...]:
    """Axes of a prompt's values after the reduction "heads" or "positions", or after none."""
    return tuple(axis for axis in ("head", "position") if f"{axis}s" != reduce)


@dataclass(frozen=True, eq=False)
class Profile:
    """Results of one `Client.profile` call, or of a saved file.

    profile["007"] is one operator; `ess`, `tss`, `channels` are all of them; the aggregates leave
    out position 0 and one-token prompts and weight a head by its channels.

    model: name, architecture, dtype, device, weight_digest, and of random weights random_init, the
    seed. options: the measure options of the request (horizon, certify, reduce), and `gaussian`. A
    reduced profile has no `head` or no `position` dimension. versions: server. stages: seconds per
    stage of the run; empty in a loaded profile.
    """

    model: Mapping[str, str]
    measures: tuple[Measure, ...]
    prompts: tuple[Prompt, ...]
    positions: IntArray
    layers: tuple[LayerResult, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_host_bytes: int = 0

    @property
    def measure_names(self) -> list[str]:
        return [str(measure) for measure in self.measures]

    @property
    def layer_names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    @property
    def reduction(self) -> str | None:
        """Over what the server has taken means: "heads", "positions" or None."""
        reduce: str | None = self.options.get("reduce")
        return reduce

    @property
    def prompt_ids(self) -> list[str]:
        return [prompt.id for prompt in self.prompts]

    @property
    def tokens(self) -> dict[str, tuple[str, ...]]:
        """Display tokens by prompt id."""
        return {prompt.id: prompt.tokens for prompt in self.prompts}

    def layer(self, name: str) -> LayerResult:
        """One operator's arrays. Raises KeyError with the names there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no operator {name!r}; there are {', '.join(self.layer_names)}")

    def __getitem__(self, key: str | tuple[str, str]) -> xr.DataArray:
        """profile[NAME]: (measure, prompt, head, position), NaN past a prompt's end.

        With singular_values:K among the measures there is a last axis `index` of length K; the
        other measures are at index 0. profile[NAME, MEASURE] is one measure, without `measure`.
        """
        name, measure = (key, None) if isinstance(key, str) else key
        layer = self.layer(name)
        if measure is not None:
            return self._one_measure(layer, canonical_measure(measure))
        stacked = self._stacked(layer.ess, np.float32(np.nan))
        return self._data_array(stacked, ("measure",), {"head": layer.heads}, layer.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layer_names)

    def __len__(self) -> int:
        return len(self.layers)

    @cached_property
    def ess(self) -> xr.DataArray:
        """(measure, layer, prompt, head, position), NaN where absent. Refused above 4 GiB."""
        return self._all_layers([layer.ess for layer in self.layers], np.float32(np.nan), "ess")

    @cached_property
    def certain(self) -> xr.DataArray | None:
        """As `ess`: whether each value is certain, False where absent; None without certify."""
        if "certify" not in self.options:
            return None
        return self._all_layers([layer.certain for layer in self.layers], np.bool_(0), "certain")

    @cached_property
    def tss(self) -> xr.DataArray:
        """(layer, prompt, head, position) float32, NaN where absent; a view where heads agree."""
        heads = self._all_heads()
        base = np.stack([layer.tss for layer in self.layers]).astype(np.float32)
        base[base < 0] = np.nan
        dense = np.broadcast_to(base[:, :, None, :], (*base.shape[:2], len(heads), base.shape[2]))
        absent = self.channels.values == 0
        if absent.any():
            dense = np.where(absent[:, None, :, None], np.float32(np.nan), dense)
        coords = self._coords() | {"layer": self.layer_names, "head": heads}
        return xr.DataArray(dense, coords, ("layer", "prompt", "head", "position"), "tss")

    @cached_property
    def channels(self) -> xr.DataArray:
        """(layer, head): channels that share the head's operator; 0 where there is no such head."""
        heads = self._all_heads()
        dense = np.zeros((len(self.layers), len(heads)), np.int32)
        for index, layer in enumerate(self.layers):
            dense[index, np.searchsorted(heads, layer.heads)] = layer.channels
        coords = {"layer": self.layer_names, "head": heads}
        return xr.DataArray(dense, coords, ("layer", "head"), "channels")

    @cached_property
    def noise_floors(self) -> xr.DataArray:
        """(layer, prompt, head): a tolerance below it counts rounding noise. NaN where absent."""
        heads = self._all_heads()
        dense = np.full((len(self.layers), len(self.prompts), len(heads)), np.nan, np.float32)
        for index, layer in enumerate(self.layers):
            dense[index][:, np.searchsorted(heads, layer.heads)] = layer.noise_floors
        coords = {"layer": self.layer_names, "prompt": self.prompt_ids, "head": heads}
        return xr.DataArray(dense, coords, ("layer", "prompt", "head"), "noise_floor")

    @property
    def routes(self) -> dict[str, dict[str, str]]:
        """How each measure was computed: routes[layer][measure]."""
        return {layer.name: dict(layer.routes) for layer in self.layers}

    def average(self, by: Iterable[str] = ()) -> xr.DataArray:
        """(measure, *by): mean over layers and prompts of (sum_h c mean_i ESS) / (sum_h c)."""
        return aggregates.average(self, by)

    def total(self, by: Iterable[str] = ()) -> xr.DataArray:
        """(measure, *by): mean over layers and prompts of sum_h c mean_i ESS."""
        return aggregates.total(self, by)

    def total_by_position(
        self, layers: Literal["mean", "sum"] = "mean", by: Iterable[str] = ()
    ) -> xr.DataArray:
        """(measure, *by, position): sum_h c ESS, mean (or sum) over layers, mean over the prompts
        that reach the position."""
        return aggregates.total_by_position(self, layers, by)

    def utilization(self, by: Iterable[str] = ("layer",)) -> xr.DataArray:
        """(measure, *by): sum(c ESS) / sum(c TSS) over all that `by` does not keep.

        NaN for the norms, which are no state sizes, and where the TSS is 0.
        """
        return aggregates.utilization(self, by)

    def to_dataframe(self) -> pd.DataFrame:
        """Tidy long form: one row per value, without the absent ones."""
        from ess_client.table import profile_table

        return profile_table(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a safetensors file, atomically; `load_profile` reads it back."""
        from ess_client.storage import save_profile

        save_profile(self, path)

    def __repr__(self) -> str:
        from ess_client._text import describe

        return describe(self)

    def _all_heads(self) -> IntArray:
        return np.unique(np.concatenate([layer.heads for layer in self.layers]))

    def _coords(self) -> dict[str, Any]:
        return {"prompt": self.prompt_ids, "position": self.positions}

    @property
    def _depth(self) -> int:
        """Length of the last axis `index`; 1 when there is none."""
        return max(measure.count or 1 for measure in self.measures)

    def _stacked(
        self, values: Mapping[str, npt.NDArray[Any]], absent: np.generic
    ) -> npt.NDArray[Any]:
        """[measures, P, ...] of one operator's arrays, with a last axis where _depth is above 1."""
        arrays = [values[measure] for measure in self.measure_names]
        axes = 1 + len(kept_axes(self.reduction))
        stacked = np.full((len(arrays), *arrays[0].shape[:axes], self._depth), absent)
        for target, array in zip(stacked, arrays, strict=True):
            with_index = array if array.ndim > axes else array[..., None]
            target[..., : with_index.shape[-1]] = with_index
        return stacked if self._depth > 1 else stacked[..., 0]

    def _all_layers(
        self, values: Sequence[Mapping[str, npt.NDArray[Any]]], absent: np.generic, name: str
    ) -> xr.DataArray:
        """(measure, layer, prompt, ...) from each layer's arrays by measure."""
        heads, depth = self._all_heads(), self._depth
        axes = kept_axes(self.reduction)
        sizes = {"head": len(heads), "position": len(self.positions)}
        leading = (len(self.measures), len(self.layers), len(self.prompts))
        kept = tuple(sizes[axis] for axis in axes)
        shape = (*leading, *kept, *((depth,) if depth > 1 else ()))
        size = absent.itemsize * int(np.prod(shape, dtype=np.int64))
        if size > MAX_DENSE_BYTES:
            raise InvalidArgument(
                f"profile.{name} would take {size} bytes; the limit is {MAX_DENSE_BYTES}: use "
                f'profile[NAME], one operator at a time, as in profile["{self.layers[0].name}"]'
            )
        dense = np.full(shape, absent)
        for index, layer in enumerate(self.layers):
            target = dense[:, index]
            where = np.searchsorted(heads, layer.heads) if "head" in axes else slice(None)
            target[:, :, where] = self._stacked(values[index], absent)
        coords = {"layer": self.layer_names, "head": heads}
        return self._data_array(dense, ("measure", "layer"), coords, name)

    def _data_array(
        self, values: npt.NDArray[Any], leading: tuple[str, ...], coords: dict[str, Any], name: str
    ) -> xr.DataArray:
        dims = (*leading, "prompt", *kept_axes(self.reduction))
        coords = self._coords() | {"measure": self.measure_names} | coords
        if values.ndim > len(dims):
            dims, coords = (*dims, "index"), coords | {"index": np.arange(values.shape[-1])}
        return xr.DataArray(values, {dim: coords[dim] for dim in dims}, dims, name)

    def _one_measure(self, layer: LayerResult, measure: str) -> xr.DataArray:
        if measure not in layer.ess:
            raise KeyError(f"no measure '{measure}'; there are {', '.join(self.measure_names)}")
        return self._data_array(layer.ess[measure], (), {"head": layer.heads}, layer.name)


def measures_from_names(names: Iterable[str]) -> tuple[Measure, ...]:
    """The measures of canonical spellings, in order."""
    return tuple(parse_measure(name) for name in names)
