"""Profiles with known contents, and the messages a server would send for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ess_client import LayerResult, Profile, Prompt, parse_measure
from ess_client._proto.ess.v1 import measures_pb2, models_pb2, profiler_pb2
from ess_client._requests import measure_message, options_message
from ess_client.selection import compress


def make_profile(
    lengths: Sequence[int] = (5, 4),
    heads: Sequence[Sequence[int]] = ((0, 1), (0, 1)),
    measures: Sequence[str] = ("tolerance:0.001", "entropy"),
    positions: Sequence[int] | None = None,
    seed: int = 0,
    certify: bool = False,
) -> Profile:
    """Random ESS of full attention: at most the position, 0 at position 0, NaN past the end."""
    random = np.random.default_rng(seed)
    parsed = tuple(parse_measure(measure) for measure in measures)
    chosen = np.array(range(max(lengths)) if positions is None else positions, np.int32)
    past_end = chosen[None, :] >= np.array(lengths)[:, None]
    layers = []
    for index, layer_heads in enumerate(heads):
        tss = np.where(past_end, -1, chosen[None, :]).astype(np.int32)
        ess, certain = {}, {}
        for measure in parsed:
            depth = () if measure.count is None else (measure.count,)
            shape = (len(lengths), len(layer_heads), len(chosen), *depth)
            values = random.random(shape) * chosen.reshape(-1, *[1] * len(depth))
            values[np.broadcast_to(past_end[:, None, :], shape[:3])] = np.nan
            ess[str(measure)] = values.astype(np.float32)
            if certify:
                certain[str(measure)] = (random.random(shape) < 0.8) & ~np.isnan(values)
        floors = random.random((len(lengths), len(layer_heads))).astype(np.float32) * 1e-4
        layers.append(
            LayerResult(
                name=f"{index:03d}",
                layer_index=index,
                operator_class="DenseOperator",
                heads=np.array(layer_heads, np.int32),
                channels=np.array([4 + 2 * h for h in layer_heads], np.int32),
                tss=tss,
                ess=ess,
                noise_floors=floors,
                routes={str(m): "reference_svd" for m in parsed},
                below_noise_floor={str(m): 0 for m in parsed},
                certain=certain,
            )
        )
    prompts = tuple(
        Prompt(str(i), n, tuple(range(100, 100 + n)), tuple(f"t{k}" for k in range(n)))
        for i, n in enumerate(lengths)
    )
    return Profile(
        model={
            "name": "tiny",
            "architecture": "llama",
            "dtype": "float32",
            "device": "cpu",
            "weight_digest": "abc",
        },
        measures=parsed,
        prompts=prompts,
        positions=chosen,
        layers=tuple(layers),
        options={"certify": True} if certify else {},
        versions={"server": "0.1.0"},
        stages={"forward": 0.25, "ess": 1.5},
    )


def reduced(profile: Profile, reduce: str) -> Profile:
    """What the server answers with this reduction, by plain loops over its definition."""
    layers = []
    for layer in profile.layers:
        ess = {m: _reduced_values(profile, layer, v, reduce) for m, v in layer.ess.items()}
        certain = {m: _reduced_flags(profile, v, reduce) for m, v in layer.certain.items()}
        layers.append(replace(layer, ess=ess, certain=certain))
    options = {**profile.options, "reduce": reduce}
    return replace(profile, layers=tuple(layers), options=options)


def _reduced_values(
    profile: Profile, layer: LayerResult, values: np.ndarray[Any, Any], reduce: str
) -> np.ndarray[Any, Any]:
    if reduce == "heads":
        weights = layer.channels / layer.channels.sum()
        return np.tensordot(values, weights, ([1], [0])).astype(np.float32)
    means = np.full((*values.shape[:2], *values.shape[3:]), np.nan, np.float32)
    for p, prompt in enumerate(profile.prompts):
        counted = (profile.positions > 0) & (profile.positions < prompt.length)
        if counted.any():
            means[p] = values[p][:, counted].mean(1, dtype=np.float64)
    return means


def _reduced_flags(
    profile: Profile, flags: np.ndarray[Any, Any], reduce: str
) -> np.ndarray[Any, Any]:
    if reduce == "heads":
        return flags.all(1)
    return np.stack(
        [
            flags[p][:, (profile.positions > 0) & (profile.positions < prompt.length)].all(1)
            for p, prompt in enumerate(profile.prompts)
        ]
    )


def messages_of(
    profile: Profile, piece: int = 7, floors_per_summary: int = 3
) -> Iterator[profiler_pb2.ProfileResponse]:
    """The stream of the Profile call, cut into small pieces."""
    yield profiler_pb2.ProfileResponse(header=_header(profile))
    for index, prompt in enumerate(profile.prompts):
        for first in range(0, prompt.length, 3):
            tokens = profiler_pb2.PromptTokens(
                prompt=index,
                id=prompt.id,
                length=prompt.length,
                first_token=first,
                token_ids=prompt.token_ids[first : first + 3],
                token_texts=prompt.tokens[first : first + 3],
            )
            yield profiler_pb2.ProfileResponse(tokens=tokens)
    for index in range(len(profile.layers)):
        for block in _blocks(profile, index, piece):
            yield profiler_pb2.ProfileResponse(ess=block)
    yield from _summaries(profile, floors_per_summary)


def _header(profile: Profile) -> profiler_pb2.ProfileHeader:
    return profiler_pb2.ProfileHeader(
        request_id="r1",
        model=models_pb2.Model(**profile.model),
        layers=[
            models_pb2.MixingOperator(
                name=layer.name,
                layer_index=layer.layer_index,
                operator_class=layer.operator_class,
                head_count=int(layer.heads.max()) + 1,
                channels=[4 + 2 * h for h in range(int(layer.heads.max()) + 1)],
                state_size=measures_pb2.StateSize(growing=measures_pb2.StateSize.Growing()),
            )
            for layer in profile.layers
        ],
        heads=[_selection(layer.heads) for layer in profile.layers],
        measures=[measure_message(measure) for measure in profile.measures],
        measure_names=profile.measure_names,
        options=options_message(
            profile.options.get("horizon"), "certify" in profile.options, profile.reduction
        ),
        positions=_selection(profile.positions),
        prompt_count=len(profile.prompts),
        server_version=profile.versions["server"],
    )


def _selection(indices: Sequence[int]) -> measures_pb2.IndexSelection:
    ranges = compress(int(index) for index in indices)
    return measures_pb2.IndexSelection(
        ranges=[
            measures_pb2.IndexRange(first=r.first, last=r.last, stride=r.stride) for r in ranges
        ]
    )


def _blocks(profile: Profile, index: int, piece: int) -> Iterator[profiler_pb2.EssBlock]:
    layer = profile.layers[index]
    for row, prompt in enumerate(profile.prompts):
        reached = int((profile.positions < prompt.length).sum())
        slices = []
        for ordinal, measure in enumerate(profile.measure_names):
            present = {None: np.s_[:, :reached], "heads": np.s_[:reached], "positions": np.s_[:]}
            present = present[profile.reduction]
            values = np.ascontiguousarray(layer.ess[measure][row][present], "<f4")
            flat = values.reshape(-1)
            certain = np.zeros(0, bool)
            if layer.certain:
                certain = np.ascontiguousarray(layer.certain[measure][row][present]).reshape(-1)
            for first in range(0, flat.size, piece):
                slices.append(
                    profiler_pb2.EssSlice(
                        layer=index,
                        prompt=row,
                        measure=ordinal,
                        shape=values.shape,
                        first_element=first,
                        values=flat[first : first + piece].tobytes(),
                        certain=certain[first : first + piece].tobytes(),
                    )
                )
        yield profiler_pb2.EssBlock(slices=slices)


def _summaries(profile: Profile, step: int) -> Iterator[profiler_pb2.ProfileResponse]:
    for index, layer in enumerate(profile.layers):
        flat = layer.noise_floors.reshape(-1)
        for first in range(0, flat.size, step):
            notes = profiler_pb2.LayerNotes(
                layer=index, noise_floors=flat[first : first + step], first_floor=first
            )
            if first == 0:
                notes.measures.extend(
                    profiler_pb2.MeasureNotes(
                        measure=ordinal,
                        route=layer.routes[name],
                        below_noise_floor=layer.below_noise_floor[name],
                    )
                    for ordinal, name in enumerate(profile.measure_names)
                )
            yield profiler_pb2.ProfileResponse(summary=profiler_pb2.ProfileSummary(layers=[notes]))
    stages = [
        profiler_pb2.StageSeconds(stage=name, seconds=value)
        for name, value in profile.stages.items()
    ]
    last = profiler_pb2.ProfileSummary(stages=stages, peak_host_bytes=1 << 20, last=True)
    yield profiler_pb2.ProfileResponse(summary=last)
