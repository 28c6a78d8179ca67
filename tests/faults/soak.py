"""Mixed load on one server for a while, and whether its memory stays.

    python -m tests.faults.soak --seconds 1200 [--leak]

Small and large profiles, operators, estimates, loads and unloads of a second model, calls whose
callers leave at any moment, and bad requests, from several threads at once. Exit code 0 when

  * every call ended with the code that its kind may have, and afterwards no call is counted as
    waiting or running;
  * from the first tenth of the run to its end, memory grew by less than MAX_GROWTH_BYTES and
    MAX_BYTES_PER_CALL for each call.

--leak: the server loses 64 KiB at each message of an answer; then the exit code must be 1.
"""

import argparse
import collections
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import psutil

from ess_client import Client, Convolution, DenseOperator, DiagonalRecurrence
from ess_client._proto.ess.v1 import profiler_pb2, profiler_pb2_grpc
from ess_client.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    EssError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from tests.end_to_end.server_process import ServerProcess

from .fault_server import FaultServer, gauges_that_are_not_zero
from .small_server import make_models

THREADS = 6
WARM_UP = 0.1
SAMPLE_SECONDS = 0.25
MAX_GROWTH_BYTES = 48 << 20
MAX_BYTES_PER_CALL = 1 << 10
LEAK = "leak:64KiB"
FIRST, SECOND = "tiny-llama", "tiny-falcon-h1"
CALL_SECONDS = 60


@dataclass
class Kind:
    """What was seen of one kind of call."""

    codes: collections.Counter = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Report:
    seconds: float
    kinds: dict[str, Kind]
    samples: list[tuple[int, int]]  # (calls so far, resident bytes), evenly in time.
    findings: list[str]

    def __post_init__(self):
        steady = self.samples[int(WARM_UP * len(self.samples)) :]
        quarter = max(len(steady) // 4, 1)
        self.calls = steady[-1][0] - steady[0][0]
        # Between the middles of the first and the last quarter: three quarters of the way.
        first, last = (
            statistics.median(memory for _, memory in part)
            for part in (steady[:quarter], steady[-quarter:])
        )
        self.growth_bytes = int((last - first) * 4 / 3)
        self.limit_bytes = MAX_GROWTH_BYTES + self.calls * MAX_BYTES_PER_CALL
        if self.growth_bytes >= self.limit_bytes:
            self.findings.append(
                f"memory grew by {self.growth_bytes >> 20} MiB in {self.calls} calls; the limit is "
                f"{self.limit_bytes >> 20} MiB"
            )

    def text(self) -> str:
        lines = [f"{'call':<18}{'count':>8}{'p50 ms':>9}{'p99 ms':>9}  ended with"]
        for name, kind in sorted(self.kinds.items()):
            times = sorted(kind.seconds)
            codes = ", ".join(f"{code} {count}" for code, count in kind.codes.most_common())
            lines.append(
                f"{name:<18}{len(times):>8}{times[len(times) // 2] * 1e3:>9.1f}"
                f"{times[len(times) * 99 // 100] * 1e3:>9.1f}  {codes}"
            )
        step = max(len(self.samples) // 10, 1)
        memory = " ".join(f"{memory >> 20}" for _, memory in self.samples[::step])
        lines += [
            f"{self.samples[-1][0]} calls in {self.seconds:.0f} s; resident memory, MiB: {memory}",
            f"growth after the first tenth: {self.growth_bytes / 2**20:.1f} MiB in {self.calls} "
            f"calls; the limit is {self.limit_bytes / 2**20:.1f} MiB",
            *self.findings[:20],
            f"{len(self.findings)} findings",
        ]
        return "\n".join(lines)


class Soak:
    def __init__(self, server: ServerProcess, seconds: float, seed: int):
        self.server = server
        self.seconds = seconds
        self.seed = seed
        self.mutex = threading.Lock()
        self.kinds: dict[str, Kind] = collections.defaultdict(Kind)
        self.calls = 0
        self.findings: list[str] = []
        self.end = 0.0
        random_numbers = np.random.default_rng(seed)
        self.matrix = np.tril(random_numbers.standard_normal((4, 64, 64)))
        self.filter = random_numbers.standard_normal(200)
        self.factors = [random_numbers.standard_normal((50, 8)) * 0.5 for _ in range(3)]

    def run(self) -> Report:
        process = psutil.Process(self.server.process.pid)
        began = time.monotonic()
        self.end = began + self.seconds
        threads = [
            threading.Thread(target=self.work, args=(number,), daemon=True)
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        samples = []
        while time.monotonic() < self.end and self.server.process.poll() is None:
            samples.append((self.calls, process.memory_info().rss))
            time.sleep(SAMPLE_SECONDS)
        for thread in threads:
            thread.join(2 * CALL_SECONDS)
        if any(thread.is_alive() for thread in threads):
            self.findings.append("a call hangs")
        if self.server.process.poll() is not None:
            raise AssertionError(f"the server has died: {self.server.log()[-4000:]}")
        self.server.wait_until_idle()
        if left := gauges_that_are_not_zero(self.server.metrics()):
            self.findings.append(f"gauges that are not 0 when all is over: {left}")
        return Report(time.monotonic() - began, dict(self.kinds), samples, self.findings)

    def work(self, number: int) -> None:
        rng = random.Random(self.seed * 100 + number)
        kinds = {
            self.small_profile: 8,
            self.large_profile: 2,
            self.operators: 5,
            self.estimate: 2,
            self.load_and_unload: 1,
            self.leave: 3,
            self.deadline: 2,
            self.bad_request: 3,
        }
        with (
            Client(self.server.address, timeout=CALL_SECONDS, retries=0) as client,
            grpc.insecure_channel(self.server.address) as channel,
        ):
            while time.monotonic() < self.end:
                kind = rng.choices(list(kinds), list(kinds.values()))[0]
                self.count(kind, client, channel, rng)

    def count(self, kind, client, channel, rng) -> None:
        began = time.monotonic()
        code = "OK"
        try:
            kind(client, channel, rng)
        except EssError as error:
            code = type(error).__name__
            if not isinstance(error, ALLOWED[kind.__name__]):
                self.findings.append(f"{kind.__name__}: {code} {error}")
        with self.mutex:
            self.calls += 1
            self.kinds[kind.__name__].codes[code] += 1
            self.kinds[kind.__name__].seconds.append(time.monotonic() - began)

    def small_profile(self, client, channel, rng):
        client.profile(FIRST, token_ids=[[rng.randrange(300) for _ in range(rng.randint(1, 40))]])

    def large_profile(self, client, channel, rng):
        client.profile(FIRST, token_ids=[[rng.randrange(300)] * 300 for _ in range(4)])

    def operators(self, client, channel, rng):
        operator = rng.choice(
            [
                DenseOperator(self.matrix),
                Convolution(self.filter),
                DiagonalRecurrence(*self.factors),
            ]
        )
        client.profile_operators(operator)

    def estimate(self, client, channel, rng):
        client.estimate(FIRST, token_ids=[[1] * rng.randint(1, 300)])

    def load_and_unload(self, client, channel, rng):
        """With a profile between; another thread may have unloaded it meanwhile."""
        client.load_model(SECOND)
        client.profile(SECOND, token_ids=[[1, 2, 3]])
        client.unload_model(SECOND)

    def leave(self, client, channel, rng):
        request = profiler_pb2.ProfileRequest(
            model=FIRST,
            prompts=[profiler_pb2.Prompt(token_ids={"ids": [5] * 200}) for _ in range(4)],
        )
        call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(request, timeout=CALL_SECONDS)
        time.sleep(rng.random() * 0.05)
        call.cancel()

    def deadline(self, client, channel, rng):
        seconds = 0.001 + rng.random() * 0.1
        client.profile(FIRST, token_ids=[[5] * 300] * 4, timeout=seconds)

    def bad_request(self, client, channel, rng):
        rng.choice(
            [
                lambda: client.profile("no-such-model", token_ids=[[1]]),
                lambda: client.profile(FIRST, token_ids=[[10**9]]),
                lambda: client.profile(FIRST, token_ids=[[1]], layers="900"),
                lambda: client.load_model("../" + FIRST),
            ]
        )()


# What may end a call of a kind, besides success.
ALLOWED = {
    "small_profile": (),
    "large_profile": (),
    "operators": (),
    "estimate": (),
    "load_and_unload": (AlreadyExists, FailedPrecondition),
    "leave": (Cancelled,),
    "deadline": (DeadlineExceeded, Cancelled),
    "bad_request": (InvalidArgument, NotFound),
}


def soak(model_root: Path, seconds: float, leak: bool = False, seed: int = 1) -> Report:
    flags = (f"--model_root={model_root}", f"--preload={FIRST}", "--threads=2")
    server = FaultServer(*flags, faults={"send": LEAK}) if leak else ServerProcess(*flags)
    with server:
        return Soak(server, seconds, seed).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--leak", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder))
        report = soak(Path(folder), arguments.seconds, arguments.leak, arguments.seed)
    print(report.text())
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
