"""When a failed call is tried again: only where that is safe, and only within its deadline.

Refused: nobody was reached, or the server had no place and said when to come back
(ess-retry-after-ms). No work had begun, so every call is tried again, `retries` times at most.

Lost: the connection broke, or the server was shutting down. The work may have begun. Reads are
tried again. Profiles too, since they change nothing and are assembled whole before the caller sees
them, but once: a request that ends a server must not end it again and again. What must not happen
twice (unload, delete) is not.

Every other error is the answer. Waiting for a job, and fetching its result, outlast a restart of
the server: once it has answered, they go on for PATIENCE after each break.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from ess_client._steps import Attempt, Call, Deadline, Pause, Script
from ess_client.errors import EssError, Unavailable

FIRST_PAUSE = 0.2  # Seconds; doubled by each try.
LONGEST_PAUSE = 10.0
PATIENCE = 300.0  # Seconds: a server that comes back has to read its models.
NOTICED_PAUSE = 1.0  # Shorter ones are no warning in the log.

_log = logging.getLogger("ess_client")


class Tries:
    """The tries of one call, or of several that go on from each other (`progressed`).

    patience: seconds of further tries, beyond `retries`, once something has come before. draw:
    gives random numbers in [0, 1), since callers must not come back all at once.
    """

    def __init__(
        self,
        retries: int,
        losses: int | None,
        deadline: Deadline,
        patience: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._retries = retries
        self._allowed_losses = retries if losses is None else losses
        self._deadline = deadline
        self._patience = patience if retries else 0.0
        self._draw = draw
        self._began = time.monotonic()
        self._failures = 0
        self._losses = 0
        self._first_failure = self._began
        self._has_progressed = False

    def pause_after(self, error: EssError) -> float:
        """Seconds until the next try. Raises the error, which then says how many tries there were,
        where there is no next one."""
        if self._failures == 0:
            self._first_failure = time.monotonic()
        self._failures += 1
        error.tries, error.seconds = self._failures, time.monotonic() - self._began
        if not error.refused:
            self._losses += 1
            if not isinstance(error, Unavailable):
                raise error
        exhausted = self._failures > self._retries or self._losses > self._allowed_losses
        patience = self._patience if self._has_progressed else 0.0
        if exhausted and time.monotonic() - self._first_failure >= patience:
            raise error
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 30))
        if error.retry_after is None:
            pause *= 0.5 + self._draw() / 2
        else:
            # Everybody who was refused at one moment was told the same.
            pause = error.retry_after + max(pause, error.retry_after / 2) * self._draw()
        if pause >= self._deadline.left():
            raise error  # There is no time for another try.
        level = logging.WARNING if pause >= NOTICED_PAUSE else logging.INFO
        _log.log(level, "%s: %s; next try in %.1f s", error.code.name, error.message, pause)
        return pause

    def progressed(self) -> None:
        """What came since the last failure will not be done again: the count begins anew."""
        self._failures = self._losses = 0
        self._has_progressed = True


def attempts(call: Call, retries: int) -> Script[object]:
    """The tries of one call; its result is the call's."""
    tries = Tries(retries, call.losses, call.deadline)
    while True:
        try:
            return (yield Attempt(call))
        except EssError as error:
            pause = tries.pause_after(error)
        yield Pause(pause)
