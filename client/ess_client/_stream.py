"""A Profile from the answers of the Profile call: header, tokens, ESS blocks, summary.

Every slice is checked against the header, and the end of the stream against what must have come:
an answer that breaks the protocol is `Internal`, never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2
from ess_client._requests import (
    gaussian_from_message,
    measure_from_message,
    options_from_message,
    ranges_from_message,
)
from ess_client.errors import Internal
from ess_client.models import LayerInfo, layer_from_message, random_seed
from ess_client.profile import LayerResult, Profile, Prompt, kept_axes
from ess_client.selection import Range, indices_below


@dataclass(frozen=True)
class Progress:
    """What a `progress` callback gets: how much is done, of how much.

    Of a profile: finished (operator, prompt) pairs. Of operators brought by the caller: values that
    have come.
    """

    done: int
    total: int
    layer: str  # Name of the operator of the newest values; empty before the first, and without.


@dataclass
class _PromptParts:
    id: str
    length: int
    token_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Layer:
    """Where the values of one operator go: arrays by measure ordinal, and how many have come."""

    info: LayerInfo
    heads: npt.NDArray[np.int64]
    arrays: list[npt.NDArray[np.float32]]  # [P, H, I] without a reduced axis, K last
    certain: list[npt.NDArray[np.bool_]]  # The same; empty without certify.
    expected: npt.NDArray[np.int64]  # Elements, [measures, P]
    received: npt.NDArray[np.int64]  # The same.
    noise_floors: npt.NDArray[np.float32]  # [P * H]
    routes: dict[str, str]
    below_noise_floor: dict[str, int]


class ProfileAssembler:
    """Feed it every response in order, then take the profile. Not thread-safe."""

    def __init__(
        self,
        request: profiler_pb2.ProfileRequest,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._request = request
        self._progress = progress
        self._header: profiler_pb2.ProfileHeader | None = None
        self._prompts: list[_PromptParts] = []
        self._layers: list[_Layer] = []
        self._positions = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)  # Selected positions of each prompt.
        self._options: dict[str, Any] = {}
        self._summary: profiler_pb2.ProfileSummary | None = None
        self._done = 0

    def add(self, response: profiler_pb2.ProfileResponse) -> None:
        kind = response.WhichOneof("message")
        if (self._header is None) != (kind == "header"):
            raise Internal(f"the answer's message '{kind}' is out of place")
        if kind == "header":
            self._header = response.header
            self._options = options_from_message(response.header.options)
            if self._request.HasField("gaussian"):
                self._options["gaussian"] = gaussian_from_message(self._request.gaussian)
        elif kind == "tokens":
            self._add_tokens(response.tokens)
        elif kind == "ess":
            self._ready()
            for piece in response.ess.slices:
                self._add_slice(piece)
        elif kind == "summary":
            self._ready()
            self._add_summary(response.summary)

    def take(self) -> Profile:
        """The profile, once the stream has ended."""
        header = self._header
        if header is None or self._summary is None or not self._summary.last:
            raise Internal("the answer ended before its summary")
        self._check_complete()
        model, seed = header.model, random_seed(header.model)
        return Profile(
            model={
                "name": model.name,
                "architecture": model.architecture,
                "dtype": model.dtype,
                "device": model.device,
                "weight_digest": model.weight_digest,
                **({} if seed is None else {"random_init": str(seed)}),
            },
            measures=tuple(measure_from_message(m) for m in header.measures),
            prompts=tuple(
                Prompt(parts.id, parts.length, tuple(parts.token_ids), tuple(parts.tokens))
                for parts in self._prompts
            ),
            positions=self._positions.astype(np.int32),
            layers=tuple(self._layer_result(layer) for layer in self._layers),
            options=self._options,
            versions={"server": header.server_version},
            stages={stage.stage: stage.seconds for stage in self._summary.stages},
            peak_host_bytes=self._summary.peak_host_bytes,
        )

    def _add_tokens(self, message: profiler_pb2.PromptTokens) -> None:
        if self._layers:
            raise Internal("tokens came after values")
        if message.prompt == len(self._prompts):
            self._prompts.append(_PromptParts(message.id, message.length))
        if message.prompt != len(self._prompts) - 1:
            raise Internal(f"tokens of prompt {message.prompt} are out of place")
        prompt = self._prompts[-1]
        if message.token_ids and message.first_token != len(prompt.token_ids):
            raise Internal(f"prompt {message.prompt}: token {message.first_token} is out of place")
        prompt.token_ids.extend(message.token_ids)
        prompt.tokens.extend(message.token_texts)

    def _ready(self) -> None:
        """Makes the arrays when the last prompt's tokens have come."""
        header = self._header
        if self._layers or header is None:
            return
        if len(self._prompts) != header.prompt_count:
            raise Internal(f"tokens of {len(self._prompts)} prompts, not of {header.prompt_count}")
        lengths = [parts.length for parts in self._prompts]
        self._positions = _chosen(header.positions, self._request.positions, max(lengths))
        self._counts = np.searchsorted(self._positions, lengths)
        for index, message in enumerate(header.layers):
            info = layer_from_message(message)
            selected = header.heads[index] if header.heads else measures_pb2.IndexSelection()
            heads = _chosen(selected, self._request.heads, info.head_count)
            self._layers.append(self._empty_layer(info, heads))
        self._done = sum(int((layer.expected == 0).all(0).sum()) for layer in self._layers)
        self._report("")

    def _empty_layer(self, info: LayerInfo, heads: npt.NDArray[np.int64]) -> _Layer:
        assert self._header is not None
        measures = [measure_from_message(m) for m in self._header.measures]
        shapes = [
            (len(self._prompts), *self._shape(len(heads), len(self._positions), m.count))
            for m in measures
        ]
        expected = np.array(
            [
                [np.prod(self._shape(len(heads), int(n), m.count)) for n in self._counts]
                for m in measures
            ],
            np.int64,
        )
        certify = "certify" in self._options
        return _Layer(
            info=info,
            heads=heads,
            arrays=[np.full(shape, np.nan, np.float32) for shape in shapes],
            certain=[np.zeros(shape, bool) for shape in shapes] if certify else [],
            expected=expected,
            received=np.zeros_like(expected),
            noise_floors=np.full(len(self._prompts) * len(heads), np.nan, np.float32),
            routes={},
            below_noise_floor={},
        )

    def _shape(self, heads: int, positions: int, count: int | None) -> tuple[int, ...]:
        """Of one prompt's values of one measure."""
        sizes = {"head": heads, "position": positions}
        axes = tuple(sizes[axis] for axis in kept_axes(self._options.get("reduce")))
        return axes if count is None else (*axes, count)

    def _add_slice(self, piece: profiler_pb2.EssSlice) -> None:
        assert self._header is not None
        where = f"slice of layer {piece.layer}, prompt {piece.prompt}, measure {piece.measure}"
        limits = (len(self._layers), len(self._prompts), len(self._layers[0].arrays))
        ordinals = (piece.layer, piece.prompt, piece.measure)
        if not all(0 <= ordinal < limit for ordinal, limit in zip(ordinals, limits, strict=True)):
            raise Internal(f"{where}: not in the header")
        layer = self._layers[piece.layer]
        rows = layer.arrays[piece.measure][piece.prompt]
        received, expected = layer.received[:, piece.prompt], layer.expected[:, piece.prompt]
        count = measure_from_message(self._header.measures[piece.measure]).count
        shape = self._shape(len(layer.heads), int(self._counts[piece.prompt]), count)
        if tuple(piece.shape) != shape:
            raise Internal(f"{where}: shape {list(piece.shape)}, expected {list(shape)}")
        values = np.frombuffer(piece.values, "<f4")
        first, size = piece.first_element, int(np.prod(shape))
        if not 0 <= first <= first + values.size <= size:
            raise Internal(f"{where}: elements from {first} on are out of place")
        # Runs may come in any order; NaN marks what has not come yet.
        target = np.unravel_index(np.arange(first, first + values.size), shape)
        if not np.isnan(rows[target]).all():
            raise Internal(f"{where}: elements from {first} on came twice")
        rows[target] = values
        if layer.certain:
            flags = np.frombuffer(piece.certain, np.uint8)
            if flags.size != values.size:
                raise Internal(f"{where}: {flags.size} flags for {values.size} values")
            layer.certain[piece.measure][piece.prompt][target] = flags != 0
        received[piece.measure] += values.size
        if values.size and (received == expected).all():
            self._done += 1
            self._report(layer.info.name)

    def _add_summary(self, message: profiler_pb2.ProfileSummary) -> None:
        assert self._header is not None
        for notes in message.layers:
            layer = self._layers[notes.layer]
            stop = notes.first_floor + len(notes.noise_floors)
            if stop > layer.noise_floors.size:
                raise Internal(f"layer {notes.layer}: {stop} noise floors are too many")
            layer.noise_floors[notes.first_floor : stop] = notes.noise_floors
            for note in notes.measures:
                measure = str(measure_from_message(self._header.measures[note.measure]))
                layer.routes[measure] = note.route
                layer.below_noise_floor[measure] = note.below_noise_floor
        self._summary = message

    def _check_complete(self) -> None:
        for layer in self._layers:
            missing = np.argwhere(layer.received != layer.expected)
            if missing.size:
                raise Internal(
                    f"the answer ended without all values of operator {layer.info.name}, "
                    f"prompt {self._prompts[missing[0][1]].id}"
                )

    def _layer_result(self, layer: _Layer) -> LayerResult:
        assert self._header is not None
        tss = np.tile(layer.info.state_size.at(self._positions), (len(self._prompts), 1))
        tss[np.arange(len(self._positions)) >= self._counts[:, None]] = -1
        names = [str(measure_from_message(m)) for m in self._header.measures]
        return LayerResult(
            name=layer.info.name,
            layer_index=layer.info.layer_index,
            operator_class=layer.info.operator_class,
            heads=layer.heads.astype(np.int32),
            channels=np.array(layer.info.channels, np.int32)[layer.heads],
            tss=tss,
            ess=dict(zip(names, layer.arrays, strict=True)),
            noise_floors=layer.noise_floors.reshape(len(self._prompts), len(layer.heads)),
            routes=layer.routes,
            below_noise_floor=layer.below_noise_floor,
            certain=dict(zip(names, layer.certain, strict=True)) if layer.certain else {},
        )

    def _report(self, layer: str) -> None:
        if self._progress is not None:
            total = len(self._layers) * len(self._prompts)
            self._progress(Progress(self._done, total, layer))


def _chosen(
    answered: measures_pb2.IndexSelection, requested: measures_pb2.IndexSelection, size: int
) -> npt.NDArray[np.int64]:
    """The header's indices. An empty one stands for all of what was requested."""
    ranges: list[Range] = ranges_from_message(answered if answered.ranges else requested)
    return indices_below(ranges, size)
