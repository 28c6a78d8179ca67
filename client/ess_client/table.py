"""A profile as a tidy table: one row per value, without the absent ones."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import numpy as np
import pandas as pd

from ess_client.profile import LayerResult, Profile, kept_axes
from ess_client.storage import written_atomically


def profile_table(profile: Profile) -> pd.DataFrame:
    """Columns: measure, layer, prompt, head, position, [index,] token, value, tss[, certain].

    `token` is empty where the prompt has no display tokens; `index` is there with singular_values,
    `certain` with certify. A profile reduced over heads has no `head`, one reduced over positions
    no `position`, `token` and `tss`.
    """
    return pd.concat(layer_tables(profile), ignore_index=True)


def layer_tables(profile: Profile) -> Iterator[pd.DataFrame]:
    """The rows of one operator after the other, so that a big profile need not fit in one table."""
    tokens = _tokens_at_positions(profile)
    for layer in profile.layers:
        yield pd.concat(
            [_rows(profile, layer, name, tokens) for name in profile.measure_names],
            ignore_index=True,
        )


def write_csv(profile: Profile, path: str | PathLike[str]) -> None:
    """Writes the table as UTF-8 CSV with a header line, atomically."""
    with (
        written_atomically(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        for index, table in enumerate(layer_tables(profile)):
            table.to_csv(file, header=index == 0, index=False)


def _rows(
    profile: Profile, layer: LayerResult, measure: str, tokens: np.ndarray[tuple[int, int]]
) -> pd.DataFrame:
    values = layer.ess[measure]
    where = np.nonzero(~np.isnan(values))
    prompt = where[0]
    axes = dict(zip(kept_axes(profile.reduction), where[1:], strict=False))
    columns = {
        "measure": np.full(len(prompt), measure, object),
        "layer": np.full(len(prompt), layer.name, object),
        "prompt": np.array(profile.prompt_ids, object)[prompt],
    }
    if "head" in axes:
        columns["head"] = layer.heads[axes["head"]]
    if "position" in axes:
        columns["position"] = profile.positions[axes["position"]]
    if any(m.count is not None for m in profile.measures):
        index = where[1 + len(axes) :]
        columns["index"] = index[0] if index else np.zeros(len(prompt), np.int64)
    if "position" in axes:
        columns["token"] = tokens[prompt, axes["position"]]
    columns["value"] = values[where]
    if "position" in axes:
        columns["tss"] = layer.tss[prompt, axes["position"]]
    if layer.certain:
        columns["certain"] = layer.certain[measure][where]
    return pd.DataFrame(columns)


def _tokens_at_positions(profile: Profile) -> np.ndarray[tuple[int, int]]:
    """Display tokens, [prompts, positions]; the empty string where there is none."""
    texts = np.full((len(profile.prompts), len(profile.positions)), "", object)
    for row, prompt in zip(texts, profile.prompts, strict=True):
        for column, position in enumerate(profile.positions):
            if position < len(prompt.tokens):
                row[column] = prompt.tokens[position]
    return texts
