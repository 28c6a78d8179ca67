"""The test accelerator (tests/support) inside a server that knows nothing of it."""

import mmap
import os
import struct
from pathlib import Path

from .server_process import ROOT

LIBRARY = ROOT / "build" / "tests" / "libtest_accelerator.so"
DEVICE = "testaccelerator:0"
WHOLE_BUDGET = 16 << 30
# As AcceleratorState has them, each an int64.
FIELDS = (
    "byte_budget",
    "allocations_to_failure",
    "allocations",
    "failures",
    "live_bytes",
    "peak_bytes",
    "allocations_to_break",
)


class Accelerator:
    """The device's state by FIELDS, in a file that the server shares: what is set takes effect with
    its next allocation."""

    def __init__(self, file: Path):
        file.write_bytes(struct.pack(f"{len(FIELDS)}q", WHOLE_BUDGET, *[0] * (len(FIELDS) - 1)))
        with file.open("r+b") as opened:
            self.state = memoryview(mmap.mmap(opened.fileno(), 0)).cast("q")
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(LIBRARY),
            "TEST_ACCELERATOR_STATE": str(file),
        }

    def __getitem__(self, field):
        return self.state[FIELDS.index(field)]

    def __setitem__(self, field, value):
        self.state[FIELDS.index(field)] = value
