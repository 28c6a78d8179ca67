"""Scripts as methods, blocking or awaited, with the script's own parameters and text.

    profile = blocking(_calls.profile)

is a method with the signature and documentation of `_calls.profile` without its positional-only
parameters, which the object supplies (`_bound`): the settings of a client, and the id of a job. So
type checkers, `help` and `inspect` see the same of Client and AsyncClient.

The object also has `_run`, which takes the steps of a script, and `_iterate` where scripts emit.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from ess_client._steps import Script
from ess_client.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Method = Callable[Concatenate[Any, P], R]
OfClient = Callable[Concatenate[Settings, P], Script[T]]
OfJob = Callable[Concatenate[Settings, str, P], Script[T]]


def blocking(script: OfClient[P, T]) -> Method[P, T]:
    return blocking_then(script, _same)


def blocking_then(script: OfClient[P, T], then: Callable[[Any, T], R]) -> Method[P, R]:
    """then: makes what the method returns, of the object and the script's value."""

    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return then(self, self._run(script(*self._bound, *arguments, **named)))

    bound: Method[P, R] = _described(method, script, then)
    return bound


def blocking_of_job(script: OfJob[P, T]) -> Method[P, T]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._run(script(*self._bound, *arguments, **named))

    bound: Method[P, T] = _described(method, script, _same)
    return bound


def iterating_of_job(script: OfJob[P, None], of: type[T]) -> Method[P, Iterator[T]]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._iterate(script(*self._bound, *arguments, **named))

    bound: Method[P, Iterator[T]] = _described(method, script, f"Iterator[{of.__name__}]")
    return bound


def awaiting(script: OfClient[P, T]) -> Method[P, Coroutine[Any, Any, T]]:
    return awaiting_then(script, _same)


def awaiting_then(
    script: OfClient[P, T], then: Callable[[Any, T], R]
) -> Method[P, Coroutine[Any, Any, R]]:
    async def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return then(self, await self._run(script(*self._bound, *arguments, **named)))

    bound: Method[P, Coroutine[Any, Any, R]] = _described(method, script, then)
    return bound


def awaiting_of_job(
    script: OfJob[P, T],
) -> Method[P, Coroutine[Any, Any, T]]:
    async def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return await self._run(script(*self._bound, *arguments, **named))

    bound: Method[P, Coroutine[Any, Any, T]] = _described(method, script, _same)
    return bound


def iterating_async_of_job(script: OfJob[P, None], of: type[T]) -> Method[P, AsyncIterator[T]]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._iterate(script(*self._bound, *arguments, **named))

    bound: Method[P, AsyncIterator[T]] = _described(method, script, f"AsyncIterator[{of.__name__}]")
    return bound


def _same(caller: Any, value: T) -> T:
    return value


def _described(method: Any, script: Callable[..., Any], returns: Any) -> Any:
    """The method with the script's name, text and parameters; the annotation of its result is
    `returns`, or that of the function `returns`, or what the script gives."""
    signature = inspect.signature(script)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    kept = [p for p in signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    if returns is _same:
        annotation = str(signature.return_annotation).removeprefix("Script[").removesuffix("]")
    elif isinstance(returns, str):
        annotation = returns
    elif isinstance(returns, type):
        annotation = returns.__name__
    else:
        annotation = inspect.signature(returns).return_annotation
    described: Any = wraps(script)(method)
    del described.__wrapped__
    described.__signature__ = signature.replace(
        parameters=[own, *kept], return_annotation=annotation
    )
    described.__annotations__ = {p.name: p.annotation for p in kept} | {"return": annotation}
    return described
