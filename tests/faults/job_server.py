"""A server with jobs that can be killed and started again, held at fault points if asked."""

import os
import signal
from pathlib import Path

from tests.end_to_end.job_calls import ENDED, JobCalls
from tests.end_to_end.server_process import ServerProcess, wait_for
from tests.faults.fault_server import FAULT_SERVER

# In the order of a job's life (server/jobs).
JOB_POINTS = (
    "job_spooled",
    "job_named",
    "job_inserted",
    "job_started",
    "job_prepare",
    "job_tokenized",
    "job_begun",
    "job_values",
    "job_layer",
    "job_layer_saved",
    "job_header",
    "job_whole",
    "job_result",
    "job_run",
    "job_ended",
)


class JobServer:
    """`folder` holds `models`; the state and the files that hold points are beside them."""

    def __init__(self, folder: Path, *flags, held=None):
        self.folder, self.held = folder, held
        self.flags = (f"--model_root={folder / 'models'}", f"--state_dir={self.state}", *flags)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def hold_file(self) -> Path:
        return self.folder / "hold"

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    def start(self, held=None, skip=0):
        """`held`: a point where work stands still, from its (skip + 1)-th time on."""
        self.trace.unlink(missing_ok=True)
        environment = {**os.environ, "ESS_FAULT_TRACE": str(self.trace)}
        if held is not None:
            self.hold_file.touch()
            environment["ESS_FAULTS"] = f"{held}=hold:{self.hold_file}@{skip}"
        self.process = ServerProcess(*self.flags, environment=environment, binary=FAULT_SERVER)
        self.process.__enter__()
        self.jobs = JobCalls(self.process.address)
        self.jobs.__enter__()

    def count(self, point) -> int:
        """How often it was reached."""
        return self.trace.read_text().split().count(point) if self.trace.exists() else 0

    def wait_for_point(self, point, times=1):
        wait_for(lambda: self.count(point) >= times)

    def kill(self):
        self.jobs.__exit__()
        self.process.process.send_signal(signal.SIGKILL)
        self.process.process.wait()
        self.process.__exit__()
        self.hold_file.unlink(missing_ok=True)

    def stop(self):
        self.hold_file.unlink(missing_ok=True)
        self.jobs.__exit__()
        self.process.__exit__()

    def results(self) -> list[Path]:
        """Files that a reader of the folder may take for a result."""
        return list(self.state.glob("jobs/*/result.safetensors"))

    def end_of(self, job_id):
        wait_for(lambda: self.jobs.get(job_id).state in ENDED, 120)
        return self.jobs.get(job_id)
