"""The stream of ProfileOperators: a declaration and pieces of the arguments; then the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ess_client._proto.ess.v1 import measures_pb2, operators_pb2
from ess_client._requests import index_message, measure_message, ranges_from_message
from ess_client.errors import Internal
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
    tss: (position). noise_floor: (batch...). certain: as ess, with certify; else None.
    route: how each measure was computed. seconds: of the server's work.
    """

    ess: xr.DataArray
    tss: xr.DataArray
    noise_floor: xr.DataArray
    certain: xr.DataArray | None
    route: Mapping[str, str]
    seconds: float


def operator_requests(
    operator: Operator,
    measures: Sequence[Measure],
    options: measures_pb2.MeasureOptions,
    positions: IndexSpec,
) -> Iterator[operators_pb2.ProfileOperatorsRequest]:
    """The messages of one call, none above PIECE_BYTES by more than a header."""
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
    )
    yield operators_pb2.ProfileOperatorsRequest(declaration=declaration)
    for index, array in enumerate(arguments.values()):
        flat = array.reshape(-1)
        step = PIECE_BYTES // array.itemsize
        for first in range(0, flat.size, step):
            data = operators_pb2.OperatorData(
                argument=index, first_element=first, values=flat[first : first + step].tobytes()
            )
            yield operators_pb2.ProfileOperatorsRequest(data=data)


def operators_result(
    responses: Iterable[operators_pb2.ProfileOperatorsResponse],
) -> OperatorsResult:
    """The result, once the stream has ended."""
    header: operators_pb2.OperatorsHeader | None = None
    summary: operators_pb2.OperatorsSummary | None = None
    values: list[list[npt.NDArray[np.float32]]] = []
    certain: list[list[npt.NDArray[np.uint8]]] = []
    for response in responses:
        kind = response.WhichOneof("message")
        if (header is None) != (kind == "header"):
            raise Internal(f"the answer's message '{kind}' is out of place")
        if kind == "header":
            header = response.header
            values = [[] for _ in header.measure_names]
            certain = [[] for _ in header.measure_names]
        elif kind == "ess":
            piece = response.ess
            received = sum(part.size for part in values[piece.measure])
            if piece.first_element != received:
                raise Internal(f"element {piece.first_element} of the answer is out of place")
            values[piece.measure].append(np.frombuffer(piece.values, "<f4"))
            certain[piece.measure].append(np.frombuffer(piece.certain, np.uint8))
        elif kind == "summary":
            summary = response.summary
    if header is None or summary is None:
        raise Internal("the answer ended before its summary")
    return _result(header, summary, values, certain)


def _result(
    header: operators_pb2.OperatorsHeader,
    summary: operators_pb2.OperatorsSummary,
    values: list[list[npt.NDArray[np.float32]]],
    certain: list[list[npt.NDArray[np.uint8]]],
) -> OperatorsResult:
    positions = indices_below(ranges_from_message(header.positions), header.length)
    batch_shape = tuple(header.batch_shape)
    batch_dims = tuple(f"batch_{axis}" for axis in range(len(batch_shape)))
    depths = [parse_measure(name).count or 1 for name in header.measure_names]
    shape = (len(depths), *batch_shape, len(positions), max(depths, default=1))
    ess = np.full(shape, np.nan, np.float32)
    known = np.zeros(shape, bool)
    for index, depth in enumerate(depths):
        target = (*batch_shape, len(positions), depth)
        ess[index, ..., :depth] = _joined(values[index], target)
        if any(part.size for part in certain[index]):
            known[index, ..., :depth] = _joined(certain[index], target)
    dims = ("measure", *batch_dims, "position", "index")
    coords = {"measure": list(header.measure_names), "position": positions}
    full = xr.DataArray(ess, coords, dims, "ess")
    flags = xr.DataArray(known, coords, dims, "certain") if known.any() else None
    if max(depths, default=1) == 1:
        full = full.isel(index=0)
        flags = None if flags is None else flags.isel(index=0)
    floors = np.array(summary.noise_floors, np.float64)
    return OperatorsResult(
        ess=full,
        tss=xr.DataArray(
            state_size_from_message(header.state_size).at(positions),
            {"position": positions},
            ("position",),
            "tss",
        ),
        noise_floor=xr.DataArray(
            floors.reshape(batch_shape) if floors.size else np.full(batch_shape, np.nan),
            dims=batch_dims,
            name="noise_floor",
        ),
        certain=flags,
        route=dict(zip(header.measure_names, summary.routes, strict=False)),
        seconds=summary.seconds,
    )


def _joined(parts: Sequence[npt.NDArray[Any]], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    flat = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if flat.size != int(np.prod(shape)):
        raise Internal(f"the answer has {flat.size} values of a measure, not {np.prod(shape)}")
    return flat.reshape(shape)
