"""Operators a caller brings: the causal matrix T itself, or the factors that make it.

Scan form, post-read: h_t = A_t h_{t-1} + b_t u_t, y_t = c_t . h_t, so
T[i, j] = c_i A_i A_{i-1} ... A_{j+1} b_j for i >= j. read="before" selects y_t = c_t . h_{t-1}:
T[i, j] = c_i A_{i-1} ... A_{j+1} b_j for i > j.

Arguments are numpy arrays or torch tensors, float32 or float64 (DiagonalRecurrence: complex too).
Leading dimensions broadcast over the arguments and are sent unexpanded. L: length, N: state size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ess_client.errors import InvalidArgument

Array = npt.NDArray[Any]
Axes = tuple[str, ...]
_REAL = (np.dtype("<f4"), np.dtype("<f8"))
_COMPLEX = (np.dtype("<c8"), np.dtype("<c16"))


@dataclass(frozen=True, eq=False)
class Operator:
    """Base of all classes: `axes` names each argument's last axes; equal names, equal sizes."""

    axes: ClassVar[Mapping[str, Axes]]
    optional: ClassVar[frozenset[str]] = frozenset()
    dtypes: ClassVar[tuple[np.dtype[Any], ...]] = _REAL

    def __post_init__(self) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for name, axes in self.axes.items():
            value = getattr(self, name)
            if value is None and name in self.optional:
                continue
            array = _as_array(value, f"{type(self).__name__}.{name}", self.dtypes)
            object.__setattr__(self, name, array)
            self._check_axes(name, array, axes, sizes)
        read = getattr(self, "read", "after")
        if read not in ("after", "before"):
            raise InvalidArgument(f'read={read!r}; it is "after" or "before"')
        leading = {n: a.shape[: a.ndim - len(self.axes[n])] for n, a in self.arguments().items()}
        try:
            np.broadcast_shapes(*leading.values())
        except ValueError:
            raise InvalidArgument(
                f"{type(self).__name__}: leading dimensions do not broadcast: "
                + ", ".join(f"{name} {list(shape)}" for name, shape in leading.items())
            ) from None

    def arguments(self) -> dict[str, Array]:
        """The arrays that are sent, in the order of declaration."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in self.axes and getattr(self, f.name) is not None
        }

    @property
    def length(self) -> int:
        """L, the positions of the operator."""
        for name, axes in self.axes.items():
            if "L" in axes and getattr(self, name) is not None:
                array: Array = getattr(self, name)
                return int(array.shape[axes.index("L") - len(axes)])
        raise AssertionError("every class has an argument with a length")

    def _check_axes(
        self, name: str, array: Array, axes: Axes, sizes: dict[str, tuple[int, str]]
    ) -> None:
        label = f"{type(self).__name__}.{name}"
        if array.ndim < len(axes):
            wanted = ", ".join(["...", *axes])
            raise InvalidArgument(f"{label} has shape {list(array.shape)}; it is [{wanted}]")
        for axis, size in zip(axes, array.shape[array.ndim - len(axes) :], strict=True):
            if size == 0:
                raise InvalidArgument(f"{label} has shape {list(array.shape)}: {axis} is 0")
            if axis == "N or 1" and size == 1:
                continue
            letter = axis.removesuffix(" or 1")
            known, source = sizes.setdefault(letter, (size, name))
            if size != known:
                raise InvalidArgument(f"{label} has {letter} = {size}, but {source} has {known}")


@dataclass(frozen=True, eq=False)
class DenseOperator(Operator):
    """T [..., L, L], lower triangular; the server refuses a non-zero above the diagonal."""

    axes: ClassVar = {"T": ("L", "L")}
    T: Any


@dataclass(frozen=True, eq=False)
class DiagonalRecurrence(Operator):
    """A_t = diag(a_t). a, b, c [..., L, N]; a may be [..., L, 1]. Complex: T = Re(...), TSS 2N."""

    axes: ClassVar = {"b": ("L", "N"), "c": ("L", "N"), "a": ("L", "N or 1")}
    dtypes: ClassVar = (*_REAL, *_COMPLEX)
    a: Any
    b: Any
    c: Any
    read: str = "after"


@dataclass(frozen=True, eq=False)
class DeltaRecurrence(Operator):
    """A_t = alpha_t (I - beta_t k_t k_t^T), b_t = beta_t k_t.

    alpha, beta [..., L]; k, c [..., L, N].
    """

    axes: ClassVar = {"alpha": ("L",), "beta": ("L",), "k": ("L", "N"), "c": ("L", "N")}
    alpha: Any
    beta: Any
    k: Any
    c: Any
    read: str = "after"


@dataclass(frozen=True, eq=False)
class DiagonalPlusRankOne(Operator):
    """A_t = diag(w_t) + p_t q_t^T, b_t = k_t (RWKV-7). All [..., L, N]."""

    axes: ClassVar = {name: ("L", "N") for name in ("w", "p", "q", "k", "c")}
    w: Any
    p: Any
    q: Any
    k: Any
    c: Any
    read: str = "after"


@dataclass(frozen=True, eq=False)
class GeneralRecurrence(Operator):
    """Any A [..., L, N, N]; b, c [..., L, N]."""

    axes: ClassVar = {"A": ("L", "N", "N"), "b": ("L", "N"), "c": ("L", "N")}
    A: Any
    b: Any
    c: Any
    read: str = "after"


@dataclass(frozen=True, eq=False)
class Convolution(Operator):
    """T[i, j] = gate_out_i h_{i-j} gate_in_j. h [..., K], gates [..., L].

    With a gate K may be below L: further taps are 0. Without one L is K.
    """

    axes: ClassVar = {"h": ("K",), "gate_out": ("L",), "gate_in": ("L",)}
    optional: ClassVar = frozenset({"gate_out", "gate_in"})
    h: Any
    gate_out: Any = None
    gate_in: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        taps = self.h.shape[-1]
        if taps > self.length:
            raise InvalidArgument(
                f"Convolution.h has K = {taps}, but the gates have L = {self.length}; "
                "a filter has at most L taps"
            )

    @property
    def length(self) -> int:
        gate: Array | None = self.gate_out if self.gate_out is not None else self.gate_in
        return int((self.h if gate is None else gate).shape[-1])


@dataclass(frozen=True, eq=False)
class BandedOperator(Operator):
    """T[i, i-d] = band[..., i, d], band [..., L, W].

    sinks [..., L, S]: the first S columns, used where the band does not reach.
    """

    axes: ClassVar = {"band": ("L", "W"), "sinks": ("L", "S")}
    optional: ClassVar = frozenset({"sinks"})
    band: Any
    sinks: Any = None


def _as_array(value: Any, label: str, dtypes: tuple[np.dtype[Any], ...]) -> Array:
    is_torch = hasattr(value, "detach")
    array: Any = value if is_torch else np.asarray(value)
    found = str(array.dtype).removeprefix("torch.") if is_torch else array.dtype.name
    names = [dtype.name for dtype in dtypes]
    if found not in names:
        raise InvalidArgument(f"{label} is {found}; it is one of {', '.join(names)}")
    if is_torch:  # On any device.
        array = array.detach().cpu().resolve_conj().numpy()
    return np.ascontiguousarray(array, np.dtype(found).newbyteorder("<"))
