"""The server with fault points, which tests hold and count (server/base/fault_point.h)."""

import collections
import contextlib
import os
import tempfile
from pathlib import Path

from tests.end_to_end.server_process import SERVER, ServerProcess

FAULT_SERVER = SERVER.with_name("ess_server_faults")
POINTS = ("queued", "tokenize", "forward", "ess", "send")
GAUGES = ("ess_requests_in_flight", "ess_queue_requests", "ess_queue_tokens")


class FaultServer(ServerProcess):
    """`faults`: actions by point, instead of the holds that `holding` needs."""

    def __init__(self, *flags, faults=None):
        self.folder = tempfile.TemporaryDirectory()
        actions = faults or {point: f"hold:{self._file(point)}" for point in POINTS}
        environment = {
            **os.environ,
            "ESS_FAULTS": ",".join(f"{point}={action}" for point, action in actions.items()),
            "ESS_FAULT_TRACE": str(self._file("trace")),
        }
        super().__init__(*flags, environment=environment, binary=FAULT_SERVER)

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.folder.cleanup()

    @contextlib.contextmanager
    def holding(self, point):
        """Work that comes to this point waits there until the block ends."""
        self._file(point).touch()
        try:
            yield
        finally:
            self._file(point).unlink()

    def begun(self) -> collections.Counter:
        """How often each point was reached: units of work that have begun."""
        if not self._file("trace").exists():
            return collections.Counter()
        return collections.Counter(self._file("trace").read_text().split())

    def _file(self, name) -> Path:
        return Path(self.folder.name) / name


def total(samples, name, **labels) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = set(labels.items())
    return sum(
        value
        for (sample, pairs), value in samples.items()
        if sample == name and wanted <= set(pairs)
    )


def gauges_that_are_not_zero(samples) -> dict:
    """Of those that return to 0 when no call is left."""
    return {key: value for key, value in samples.items() if key[0] in GAUGES and value != 0}
