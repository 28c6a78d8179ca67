"""Sends mutated calls to a server, many at a time, and checks what hostile input may do: nothing.

    python -m tests.faults.hostile_run --calls 200000 --seed 1

ESS_SERVER_BINARY names another server, one with sanitizers for example. Exit code 0 when all held.

What must hold:
  * every call ends, with a code of ALLOWED, or UNIMPLEMENTED when its messages are not a call, or
    DEADLINE_EXCEEDED when it asked for that;
  * no message has anything of the server's inside: paths, source lines, C++ names, addresses;
  * the server lives, and at every checkpoint the good calls answer the bits they answered at first;
  * memory returns: between the first checkpoint after WARM_UP of the run and the last one, the
    resident memory grows by no more than MAX_GROWTH_MIB. AddressSanitizer keeps the stack of each
    kind of allocation: its servers need a larger --max-growth-mib.
"""

import argparse
import collections
import contextlib
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from google.protobuf.message import DecodeError

from ess_client._proto.ess.v1 import models_pb2
from tests.end_to_end.job_calls import JobCalls
from tests.end_to_end.server_process import ServerProcess

from .good_calls import SERVICE, Call, digest, good_calls, job_calls, submission
from .mutation import mutated_call
from .small_server import make_models, write_config

CONCURRENT = 24
CALL_SECONDS = 60  # A call that takes longer hangs.
CHECKPOINTS = 10
WARM_UP = 0.3
MAX_GROWTH_MIB = 48

Code = grpc.StatusCode
ALLOWED = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
}

# What no error may say, outside of the quotes around what the caller said.
INTERNAL = re.compile(
    r"(?:^|[\s(\"])/(?:[\w.+-]+/)*[\w.+-]+|\w::\w|\.(?:cc|cpp|py|rs)\b|\.h:\d|0x[0-9a-f]{6}|Traceback"
)
QUOTED = re.compile(r"'[^']*'")


@dataclass
class Report:
    calls: int = 0
    codes: collections.Counter = field(default_factory=collections.Counter)
    resident_bytes: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def text(self) -> str:
        codes = ", ".join(f"{code} {count}" for code, count in self.codes.most_common())
        memory = " ".join(f"{size >> 20}" for size in self.resident_bytes)
        return (
            f"{self.calls} mutated calls in {self.seconds:.0f} s: {codes}\n"
            f"resident memory at the checkpoints, MiB: {memory}\n"
            f"{len(self.findings)} findings"
        )


class HostileRun:
    def __init__(self, server: ServerProcess, seed: int, max_growth_mib: int):
        self.server = server
        self.max_growth = max_growth_mib << 20
        self.seed = seed
        self.calls = good_calls() + job_calls(self.finished_job())
        self.request_types = {call.method: type(call.messages[0]) for call in self.calls}
        self.report = Report()

    def finished_job(self) -> str:
        with JobCalls(self.server.address) as jobs:
            job = jobs.stub.SubmitJob(iter(submission()), timeout=CALL_SECONDS)
            return jobs.end(job.id).id

    def run(self, count: int) -> Report:
        start = time.monotonic()
        with (
            grpc.insecure_channel(self.server.address) as self.channel,
            ThreadPoolExecutor(CONCURRENT) as self.workers,
        ):
            expected = self.good_answers()
            steps = [count * step // CHECKPOINTS for step in range(CHECKPOINTS + 1)]
            for begin, end in zip(steps, steps[1:], strict=False):
                for outcome in self.workers.map(self.send_mutated, range(begin, end)):
                    self.take(*outcome)
                self.checkpoint(expected)
        self.report.seconds = time.monotonic() - start
        self.check_memory()
        return self.report

    def send_mutated(self, number: int):
        method, messages = mutated_call(self.calls, self.seed * 1_000_003 + number)
        code, details, _ = self.answer(method, messages)
        return number, method, messages, code, details

    def take(self, number, method, messages, code, details) -> None:
        self.report.calls += 1
        self.report.codes[code.name] += 1
        said = INTERNAL.search(QUOTED.sub("", details or ""))
        # A request of inference may set the longest wait in the queue, and set it to a microsecond.
        asked_for = code is Code.DEADLINE_EXCEEDED and "(timeout)" in details
        no_call = code is Code.UNIMPLEMENTED and self.is_no_call(method, messages)
        if not said and (code in ALLOWED or asked_for or no_call):
            return
        shown = [message[:200].hex() for message in messages[:4]]
        self.report.findings.append(f"call {number}: {method} {code.name} {details!r} {shown}")

    def is_no_call(self, method: str, messages: list[bytes]) -> bool:
        """Whether the bytes are not one message of the method's type, as libraries write it.

        gRPC C++ answers such a call by itself, with UNIMPLEMENTED: the handler never sees it. But
        Profile parses for itself.
        Parsers differ in what they let pass, a field of number 0 for one, so other spellings of a
        message may be refused as well.
        """
        if method == SERVICE + "Profile":
            return False
        if len(messages) != 1:
            return True
        try:
            message = self.request_types[method].FromString(messages[0])
        except DecodeError:
            return True
        message.DiscardUnknownFields()
        return message.SerializeToString(deterministic=True) != messages[0]

    def answer(self, method: str, messages: list[bytes]):
        """(code, details, messages) of a call of raw bytes; on the wire every call is a stream."""
        if len(messages) == 1:
            call = self.channel.unary_stream(method)(messages[0], timeout=CALL_SECONDS)
        else:
            call = self.channel.stream_stream(method)(iter(messages), timeout=CALL_SECONDS)
        answers = []
        with contextlib.suppress(grpc.RpcError):
            answers.extend(call)
        return call.code(), call.details(), answers

    def good_answers(self) -> dict[int, str]:
        """The digest of each good call's answer, once the models are as they were at the start."""
        self.unload_everything()
        digests = {}
        for number, call in enumerate(self.calls):
            code, details, answers = self.answer(*encoded(call))
            if code is not Code.OK:
                raise AssertionError(f"good call {number} {call.method}: {code.name} {details}")
            if call.repeats:
                digests[number] = digest([call.answer.FromString(answer) for answer in answers])
        return digests

    def unload_everything(self) -> None:
        _, _, answers = self.answer(
            SERVICE + "ListModels", [models_pb2.ListModelsRequest().SerializeToString()]
        )
        for model in models_pb2.ListModelsResponse.FromString(answers[0]).models:
            request = models_pb2.UnloadModelRequest(name=model.name)
            self.answer(SERVICE + "UnloadModel", [request.SerializeToString()])

    def checkpoint(self, expected: dict[int, str]) -> None:
        if self.server.process.poll() is not None:
            raise AssertionError(
                f"the server has died within {self.report.calls} calls; the first finding is "
                f"{self.report.findings[:1]}, its last words {self.server.log()[-4000:]}"
            )
        found = self.good_answers()
        for number, value in expected.items():
            if found[number] != value:
                self.report.findings.append(
                    f"after {self.report.calls} calls: {self.calls[number].method} (good call "
                    f"{number}) answers other bits"
                )
        memory = psutil.Process(self.server.process.pid).memory_info()
        self.report.resident_bytes.append(memory.rss)

    def check_memory(self) -> None:
        sizes = self.report.resident_bytes
        growth = sizes[-1] - sizes[int(WARM_UP * len(sizes))]
        if growth > self.max_growth:
            self.report.findings.append(
                f"resident memory grew by {growth} bytes after the warm-up; the limit is "
                f"{self.max_growth}"
            )


def encoded(call: Call) -> tuple[str, list[bytes]]:
    return call.method, [message.SerializeToString(deterministic=True) for message in call.messages]


def hostile_run(
    server: ServerProcess, count: int, seed: int, max_growth_mib: int = MAX_GROWTH_MIB
) -> Report:
    return HostileRun(server, seed, max_growth_mib).run(count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-growth-mib", type=int, default=MAX_GROWTH_MIB)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder) / "models")
        config = write_config(Path(folder), Path(folder) / "models")
        with ServerProcess(f"--config={config}", f"--state_dir={folder}/state") as server:
            report = hostile_run(server, arguments.calls, arguments.seed, arguments.max_growth_mib)
    print("\n".join(report.findings[:50]))
    print(report.text())
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
