"""What a call does, without saying how it waits: written once for Client and AsyncClient.

A script is a generator. It yields steps, is sent their results, and returns what the call returns;
the EssError of a step is raised where it was yielded. Client takes the steps one after the other
and blocks, AsyncClient awaits them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ess_client.errors import DeadlineExceeded, EssError, InvalidArgument

T = TypeVar("T")
Script = Generator[Any, Any, T]


class Deadline:
    """The end of a call: all its tries and pauses together."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise InvalidArgument(f"timeout is {seconds}; it must be above 0")
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, above 0. Raises DeadlineExceeded."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceeded(f"not done after {self._seconds:g} s (timeout)")
        return seconds


class Collector(Protocol):
    """Makes one value of a stream of answers."""

    def add(self, answer: Any) -> None: ...

    def take(self) -> Any: ...


@dataclass(frozen=True)
class Call:
    """An RPC, with the tries of _retry. Its result is the answer, or what `collect` has made.

    request: the message, or for a stream of them a function that begins it anew for each try.
    losses: how often it may be sent again after a connection was lost while the server perhaps
      worked on it. None: as often as `retries` allows (cheap reads); 0: never.
    collect: makes the collector of a stream of answers, a new one for each try.
    """

    method: str
    request: Any | Callable[[], Iterable[Any]]
    deadline: Deadline
    losses: int | None = None
    collect: Callable[[], Collector] | None = None


@dataclass(frozen=True)
class Attempt:
    """One try of a call."""

    call: Call


@dataclass(frozen=True)
class Open:
    """Begins an RPC whose answers are read one by one. Its result has a method `cancel`."""

    method: str
    request: Any
    seconds: float


@dataclass(frozen=True)
class Next:
    """The next answer of what Open has begun; None at its end."""

    stream: Any


@dataclass(frozen=True)
class Emit:
    """Hands a value to the caller, who iterates."""

    value: Any


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Compute:
    """Work that takes long enough to hold up an event loop, such as hashing a file."""

    function: Callable[[], Any]


class Running(Generic[T]):
    """A script between two steps: `step` is the one to take now, None when it has returned."""

    def __init__(self, script: Script[T]) -> None:
        self._script = script
        self.step: Any = None
        self.value: T
        self.send(None)

    def send(self, result: Any) -> None:
        self._go(lambda: self._script.send(result))

    def throw(self, error: EssError) -> None:
        self._go(lambda: self._script.throw(error))

    def close(self) -> None:
        """Ends a script that has not returned; what it holds is given back."""
        self._script.close()

    def _go(self, advance: Callable[[], Any]) -> None:
        try:
            self.step = advance()
        except StopIteration as end:
            self.step, self.value = None, end.value
