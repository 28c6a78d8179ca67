"""The real server as a process, on free ports."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
# ESS_SERVER_BINARY: another one, with sanitizers for example.
SERVER = Path(os.environ.get("ESS_SERVER_BINARY", ROOT / "build" / "bin" / "ess_server"))
START_SECONDS = 120
STOP_SECONDS = 60


def wait_for(condition, seconds=30):
    """A call is counted and logged when it is over, a moment after its client has the answer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


class ServerProcess:
    """`with ServerProcess("--model_root=...") as server:` starts it and stops it with SIGTERM."""

    def __init__(self, *flags, environment=None, binary=SERVER):
        self.flags = flags
        self.binary = binary
        self.environment = environment  # Instead of this process's own.

    def __enter__(self):
        self.log_file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [self.binary, "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", *self.flags],
            stdout=subprocess.PIPE,
            stderr=self.log_file,
            text=True,
            env=self.environment,
        )
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        self.ready_line = self.process.stdout.readline().strip()
        timer.cancel()
        ready = re.fullmatch(r"ess_server ready grpc=(\S+) metrics=(\S+)", self.ready_line)
        if not ready:
            self.process.kill()
            raise RuntimeError(f"no ready line but {self.ready_line!r}\n{self.log()}")
        self.address, self.metrics_address = ready.groups()
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log_file.close()

    def log(self):
        self.log_file.seek(0)
        return self.log_file.read().decode()

    def metrics(self):
        """Sample name and labels -> value, as {("ess_tokens_total", (("model", "m"),)): 5.0}."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name, **labels):
        """One sample's value; 0 when it is not there."""
        return self.metrics().get((name, tuple(sorted(labels.items()))), 0.0)

    def wait_until_idle(self):
        """Until every call that began has been counted and logged."""

        def total(samples, name):
            return sum(value for (sample, _), value in samples.items() if sample == name)

        def idle(samples):
            started = total(samples, "ess_grpc_started_total")
            return started == total(samples, "ess_grpc_handled_total")

        wait_for(lambda: idle(self.metrics()))


def run_server(*flags, environment=None):
    """Runs the server to its end, for starts that fail."""
    return subprocess.run(
        [SERVER, *flags],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env=environment,
    )
