"""The stream of ProfileOperators: a declaration and pieces of the arguments; then the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ess_client._proto.ess.v1 import measures_pb2, operators_pb2
from ess_client._requests import (
    index_message,
    measure_message,
    options_from_message,
    priority_value,
    ranges_from_message,
)
from ess_client._stream import Progress
from ess_client.errors import Internal, InvalidArgument
from ess_client.measures import Measure, parse_measure
from ess_client.models import state_size_from_message
from ess_client.operators import Operator
from ess_client.selection import IndexSpec, indices_below

PIECE_BYTES = 1 << 19  # Half the limit of a message.

_CLASSES = {
    "DenseOperator": operators_pb2.OPERATOR_CLASS_DENSE,
    "DiagonalRecurrence": operators_pb2.OPERATOR_CLASS_DIAGONAL_RECURRENCE,
    "DeltaRecurrence": operators_pb2.OPERATOR_CLASS_DELTA_RECURRENCE,
    "DiagonalPlusRankOne": operators_pb2.OPERATOR_CLASS_DIAGONAL_PLUS_RANK_ONE,
    "GeneralRecurrence": operators_pb2.OPERATOR_CLASS_GENERAL_RECURRENCE,
    "Convolution": operators_pb2.OPERATOR_CLASS_CONVOLUTION,
    "BandedOperator": operators_pb2.OPERATOR_CLASS_BANDED,
}
_DTYPES = {
    "float32": operators_pb2.OPERATOR_DTYPE_FLOAT32,
    "float64": operators_pb2.OPERATOR_DTYPE_FLOAT64,
    "complex64": operators_pb2.OPERATOR_DTYPE_COMPLEX64,
    "complex128": operators_pb2.OPERATOR_DTYPE_COMPLEX128,
}


@dataclass(frozen=True, eq=False)
class OperatorsResult:
    """ESS of operators brought by the caller; their leading dimensions are batch_0, batch_1, ...

    ess: (measure, batch..., position), with a last axis `index` when a singular_values:K is asked.
      Reduced over "heads" it has no batch dimensions, over "positions" no position.
    tss: (position). noise_floor: (batch...). certain: as ess, with certify; else None.
    route: how each measure was computed. below_noise_floor: per measure, the operators whose
    tolerance lies below their noise floor. seconds: of the server's work.
    """

    ess: xr.DataArray
    tss: xr.DataArray
    noise_floor: xr.DataArray
    certain: xr.DataArray | None
    route: Mapping[str, str]
    below_noise_floor: Mapping[str, int]
    seconds: float


def operator_requests(
    operator: Operator,
    measures: Sequence[Measure],
    options: measures_pb2.MeasureOptions,
    positions: IndexSpec,
    priority: str = "normal",
) -> Iterator[operators_pb2.ProfileOperatorsRequest]:
    """The messages of one call, none above PIECE_BYTES by more than a header.

    What is wrong with the arguments is raised here, not while the messages are taken.
    """
    if not isinstance(operator, Operator):
        raise InvalidArgument(
            f"operator is {type(operator).__name__}; it is one of {', '.join(_CLASSES)}"
        )
    arguments = operator.arguments()
    before = getattr(operator, "read", "after") == "before"
    declaration = operators_pb2.OperatorDeclaration(
        operator_class=_CLASSES[type(operator).__name__],
        read_order=operators_pb2.READ_ORDER_BEFORE if before else operators_pb2.READ_ORDER_AFTER,
        arguments=[
            operators_pb2.OperatorArgument(
                name=name, dtype=_DTYPES[array.dtype.name], shape=array.shape
            )
            for name, array in arguments.items()
        ],
        measures=[measure_message(measure) for measure in measures],
        options=options,
        positions=index_message(positions, "positions"),
        priority=priority_value(priority),
    )
    return _messages(declaration, arguments)


def _messages(
    declaration: operators_pb2.OperatorDeclaration, arguments: Mapping[str, npt.NDArray[Any]]
) -> Iterator[operators_pb2.ProfileOperatorsRequest]:
    yield operators_pb2.ProfileOperatorsRequest(declaration=declaration)
    for index, array in enumerate(arguments.values()):
        flat = array.reshape(-1)
        step = PIECE_BYTES // array.itemsize
        for first in range(0, flat.size, step):
            data = operators_pb2.OperatorData(
                argument=index, first_element=first, values=flat[first : first + step].tobytes()
            )
            yield operators_pb2.ProfileOperatorsRequest(data=data)


class OperatorsAssembler:
    """Feed it every response in order, then take the result. Not thread-safe."""

    def __init__(self, progress: Callable[[Progress], None] | None = None) -> None:
        self._progress = progress
        self._header: operators_pb2.OperatorsHeader | None = None
        self._summary: operators_pb2.OperatorsSummary | None = None
        self._options: dict[str, Any] = {}
        self._measures: list[Measure] = []
        self._dims: tuple[str, ...] = ()
        self._positions = np.zeros(0, np.int64)
        self._values: list[npt.NDArray[np.float32]] = []
        self._certain: list[npt.NDArray[np.bool_]] = []
        self._received: list[int] = []
        self._floors: list[float] = []

    def add(self, response: operators_pb2.ProfileOperatorsResponse) -> None:
        kind = response.WhichOneof("message")
        if (self._header is None) != (kind == "header") or self._summary is not None:
            raise Internal(f"the answer's message '{kind}' is out of place")
        if kind == "header":
            self._begin(response.header)
        elif kind == "ess":
            self._add_slice(response.ess)
        elif kind == "summary":
            self._floors += response.summary.noise_floors
            if response.summary.last:
                self._summary = response.summary

    def take(self) -> OperatorsResult:
        """The result, once the stream has ended."""
        header, summary = self._header, self._summary
        if header is None or summary is None:
            raise Internal("the answer ended before its summary")
        for measure, received, values in zip(
            self._measures, self._received, self._values, strict=True
        ):
            if received != values.size:
                raise Internal(f"the answer has {received} of {values.size} values of {measure}")
        batch = tuple(header.batch_shape)
        if len(self._floors) != int(np.prod(batch)):
            raise Internal(f"the answer has {len(self._floors)} noise floors, not {np.prod(batch)}")
        names = [str(measure) for measure in self._measures]
        return OperatorsResult(
            ess=self._data_array(self._values, np.float32(np.nan), "ess"),
            tss=xr.DataArray(
                state_size_from_message(header.state_size).at(self._positions),
                {"position": self._positions},
                ("position",),
                "tss",
            ),
            noise_floor=xr.DataArray(
                np.array(self._floors, np.float64).reshape(batch),
                dims=_batch_dims(header),
                name="noise_floor",
            ),
            certain=self._data_array(self._certain, np.bool_(0), "certain")
            if self._certain
            else None,
            route=dict(zip(names, summary.routes, strict=True)),
            below_noise_floor=dict(zip(names, summary.below_noise_floor, strict=True)),
            seconds=summary.seconds,
        )

    def _begin(self, header: operators_pb2.OperatorsHeader) -> None:
        self._header = header
        self._options = options_from_message(header.options)
        self._measures = [parse_measure(name) for name in header.measure_names]
        self._positions = indices_below(ranges_from_message(header.positions), header.length)
        sizes = dict(zip(_batch_dims(header), header.batch_shape, strict=True))
        sizes["position"] = len(self._positions)
        gone = self._options.get("reduce")
        self._dims = tuple(
            dim for dim in sizes if gone != ("positions" if dim == "position" else "heads")
        )
        for measure in self._measures:
            shape = [sizes[dim] for dim in self._dims]
            shape += [] if measure.count is None else [measure.count]
            self._values.append(np.full(shape, np.nan, np.float32))
            if "certify" in self._options:
                self._certain.append(np.zeros(shape, bool))
        self._received = [0] * len(self._measures)
        self._report()

    def _add_slice(self, piece: operators_pb2.OperatorsSlice) -> None:
        where = f"slice of measure {piece.measure} from element {piece.first_element} on"
        if not 0 <= piece.measure < len(self._measures):
            raise Internal(f"{where}: not in the header")
        values = np.frombuffer(piece.values, "<f4")
        first, target = self._received[piece.measure], self._values[piece.measure].reshape(-1)
        if piece.first_element != first or first + values.size > target.size:
            raise Internal(f"{where}: out of place")
        target[first : first + values.size] = values
        if self._certain:
            flags = np.frombuffer(piece.certain, np.uint8)
            if flags.size != values.size:
                raise Internal(f"{where}: {flags.size} flags for {values.size} values")
            self._certain[piece.measure].reshape(-1)[first : first + flags.size] = flags != 0
        self._received[piece.measure] += values.size
        self._report()

    def _data_array(
        self, arrays: Sequence[npt.NDArray[Any]], absent: np.generic, name: str
    ) -> xr.DataArray:
        """(measure, ...): one array of all measures, with `index` where one has more than 1."""
        depth = max(measure.count or 1 for measure in self._measures)
        axes = len(self._dims)
        stacked = np.full((len(arrays), *arrays[0].shape[:axes], depth), absent)
        for target, array in zip(stacked, arrays, strict=True):
            with_index = array if array.ndim > axes else array[..., None]
            target[..., : with_index.shape[-1]] = with_index
        coords: dict[str, Any] = {"measure": [str(measure) for measure in self._measures]}
        if "position" in self._dims:
            coords["position"] = self._positions
        dims = ("measure", *self._dims)
        if depth == 1:
            return xr.DataArray(stacked[..., 0], coords, dims, name)
        return xr.DataArray(stacked, coords | {"index": np.arange(depth)}, (*dims, "index"), name)

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(Progress(sum(self._received), sum(v.size for v in self._values), ""))


def _batch_dims(header: operators_pb2.OperatorsHeader) -> tuple[str, ...]:
    return tuple(f"batch_{axis}" for axis in range(len(header.batch_shape)))
