"""Means, totals and utilization of a profile. arXiv:2504.19561, section 3.1 and appendix D.3.

A *cell* is one (layer, prompt). Position 0 (no past) and one-token prompts are left out; a head
counts with the number of channels c that share its operator. NaN is "absent" and never counts.

  average            mean over cells of (sum_h c m_h) / (sum_h c),  m_h = mean over i of ESS
  total              mean over cells of sum_h c m_h
  total_by_position  mean over cells of sum_h c ESS_i
  utilization        sum of c ESS / sum of c TSS

`by` keeps dimensions: those of layer, prompt, head, position that are named are not reduced. A kept
head has its own channels as weight. All arithmetic is float64; the cost is one pass over the data.

A profile that the server has reduced holds means: over its heads, which then count as one head with
the channels of all, or over its positions from 1 on. Its aggregates are the same numbers, except
for those that would need the dimension that is gone; they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ess_client.errors import InvalidArgument

if TYPE_CHECKING:
    from ess_client.profile import LayerResult, Profile

Array = npt.NDArray[np.float64]
DIMS = ("layer", "prompt", "head", "position")


def average(profile: Profile, by: Iterable[str] = ()) -> xr.DataArray:
    kept = _kept_dims(profile, by)

    def cell(ess: Array, channels: Array) -> tuple[Array, Array]:
        values, weights = _over_heads(_over_positions(ess, kept), channels, kept)
        return _counted(_divide(values, weights))

    return _reduce(profile, kept, cell, "average")


def total(profile: Profile, by: Iterable[str] = ()) -> xr.DataArray:
    kept = _kept_dims(profile, by)

    def cell(ess: Array, channels: Array) -> tuple[Array, Array]:
        values, weights = _over_heads(_over_positions(ess, kept), channels, kept)
        return _counted(np.where(weights > 0, values, np.nan))

    return _reduce(profile, kept, cell, "total")


def total_by_position(
    profile: Profile, layers: Literal["mean", "sum"] = "mean", by: Iterable[str] = ()
) -> xr.DataArray:
    if layers not in ("mean", "sum"):
        raise InvalidArgument(f'layers={layers!r}; it is "mean" or "sum"')
    kept = _kept_dims(profile, [*([by] if isinstance(by, str) else by), "position"])
    if layers == "mean" or "layer" in kept:
        return total(profile, kept).rename("total_by_position")
    by_layer = total(profile, kept | {"layer"} | {"prompt"})
    summed = by_layer.sum("layer", skipna=True, min_count=1)
    reduced = summed if "prompt" in kept else summed.mean("prompt", skipna=True)
    return reduced.rename("total_by_position")


def utilization(profile: Profile, by: Iterable[str] = ("layer",)) -> xr.DataArray:
    kept = _kept_dims(profile, by)

    def cell(ess: Array, channels: Array, tss: Array) -> tuple[Array, Array]:
        if profile.reduction == "positions":  # A mean stands for the sum over its positions.
            counted = (tss >= 0).sum(1)
            ess = ess * counted[:, None, None]
            tss = np.where(tss >= 0, tss, 0).sum(1, keepdims=True)
        absent = np.isnan(ess)
        sums = []
        for values in (ess, np.broadcast_to(tss[:, None, :], ess.shape)):
            weighted = np.where(absent, 0, values) * channels[:, None]
            for axis, dim in ((2, "position"), (1, "head")):
                if dim not in kept:
                    weighted = weighted.sum(axis, keepdims=True)
            sums.append(weighted)
        return sums[0], sums[1]

    result = _reduce(profile, kept, cell, "utilization", with_tss=True)
    no_state = [str(m) for m in profile.measures if not m.is_state_size and m.count is None]
    if no_state:
        result.loc[{"measure": no_state}] = np.nan
    return result


def _kept_dims(profile: Profile, by: Iterable[str]) -> frozenset[str]:
    kept = frozenset([by] if isinstance(by, str) else by) - {"measure"}
    unknown = sorted(kept - set(DIMS))
    if unknown:
        raise InvalidArgument(f"by holds {unknown[0]!r}; the dimensions are {', '.join(DIMS)}")
    gone = sorted(dim for dim in kept if f"{dim}s" == profile.reduction)
    if gone:
        raise InvalidArgument(
            f"this needs every {gone[0]}, and the profile holds means over {profile.reduction} "
            f'(reduce="{profile.reduction}"): profile again without reduce'
        )
    return kept


def _over_positions(ess: Array, kept: frozenset[str]) -> Array:
    """[P, H, I] => [P, H, 1], NaN where a prompt has no position to count, unless kept."""
    if "position" in kept:
        return ess
    present = ~np.isnan(ess)
    return _divide(
        np.where(present, ess, 0).sum(2, keepdims=True), present.sum(2, keepdims=True).astype(float)
    )


def _over_heads(values: Array, channels: Array, kept: frozenset[str]) -> tuple[Array, Array]:
    """Sums of c * value and of c over the heads present, [P, H, *] => [P, 1, *], unless kept."""
    present = ~np.isnan(values)
    weighted = np.where(present, values, 0) * channels[:, None]
    weights = present * channels[:, None]
    if "head" not in kept:
        return weighted.sum(1, keepdims=True), weights.sum(1, keepdims=True)
    return weighted, weights


def _counted(values: Array) -> tuple[Array, Array]:
    present = ~np.isnan(values)
    return np.where(present, values, 0), present.astype(float)


def _divide(numerator: Array, denominator: Array) -> Array:
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _reduce(
    profile: Profile,
    kept: frozenset[str],
    cell: Callable[..., tuple[Array, Array]],
    name: str,
    with_tss: bool = False,
) -> xr.DataArray:
    """Adds numerators and denominators, both [P, H or 1, I or 1], over what is not kept."""
    inner = profile.positions > 0
    names = [str(m) for m in profile.measures if m.count is None]
    heads = np.unique(np.concatenate([layer.heads for layer in profile.layers]))
    shape = (
        len(names),
        len(profile.layers) if "layer" in kept else 1,
        len(profile.prompts) if "prompt" in kept else 1,
        len(heads) if "head" in kept else 1,
        int(inner.sum()) if "position" in kept else 1,
    )
    numerator, denominator = np.zeros(shape), np.zeros(shape)
    for index, layer in enumerate(profile.layers):
        row = index if "layer" in kept else 0
        column = np.searchsorted(heads, layer.heads) if "head" in kept else slice(None)
        for m, measure in enumerate(names):
            parts = cell(*_layer_arrays(profile, layer, measure, inner, with_tss))
            for sums, part in zip((numerator, denominator), parts, strict=True):
                added = part if "prompt" in kept else part.sum(0, keepdims=True)
                sums[m, row][:, column] += added
    coords: dict[str, Any] = {
        "measure": names,
        "layer": profile.layer_names,
        "prompt": profile.prompt_ids,
        "head": heads,
        "position": profile.positions[inner],
    }
    dims = ("measure", *(dim for dim in DIMS if dim in kept))
    dropped = tuple(axis for axis, dim in enumerate(DIMS, 1) if dim not in kept)
    values = np.squeeze(_divide(numerator, denominator), dropped)
    return xr.DataArray(values, {dim: coords[dim] for dim in dims}, dims, name)


def _layer_arrays(
    profile: Profile,
    layer: LayerResult,
    measure: str,
    inner: npt.NDArray[np.bool_],
    with_tss: bool,
) -> tuple[Array, ...]:
    """ESS [P, H, I] and channels [H] (and TSS [P, I]) of the positions that count. A reduced axis
    has length 1."""
    ess = layer.ess[measure].astype(np.float64)
    channels = layer.channels.astype(np.float64)
    if profile.reduction == "heads":
        ess, channels = ess[:, None, :], channels.sum(keepdims=True)
    ess = ess[:, :, None] if profile.reduction == "positions" else ess[..., inner]
    return (ess, channels, layer.tss[:, inner].astype(np.float64)) if with_tss else (ess, channels)
