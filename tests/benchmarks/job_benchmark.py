#!/usr/bin/env python3
"""Jobs against the same work through Profile, what the database adds, and what watchers cost.

Ratios within one run. Needs build/bin/ess_server.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ess_client._proto.ess.v1 import profiler_pb2  # noqa: E402
from tests.end_to_end import tiny_models  # noqa: E402
from tests.end_to_end.job_calls import RUNNING, SUCCEEDED, JobCalls  # noqa: E402
from tests.end_to_end.server_process import ServerProcess, wait_for  # noqa: E402

PROMPTS, BATCH, ROUNDS = 1000, 256, 5
WATCHERS = 50


def row(text, met):
    print(f"{text}  {'ok' if met else 'MISSED'}", flush=True)


def profile_seconds(jobs, prompts):
    """Full batches one after the other; the answers are read and thrown away."""
    start = time.perf_counter()
    for first in range(0, len(prompts), BATCH):
        request = profiler_pb2.ProfileRequest(model="tiny")
        for ids in prompts[first : first + BATCH]:
            request.prompts.add().token_ids.ids.extend(ids)
        for _ in jobs.stub.Profile(request, timeout=600):
            pass
    return time.perf_counter() - start


def job_times(jobs, prompts):
    """From the submission to the end, and the part of it that the job ran."""
    start = time.perf_counter()
    job = jobs.end(jobs.submit("tiny", prompts=prompts).id)
    assert job.state == SUCCEEDED, job.error_message
    return time.perf_counter() - start, job.finished_at - job.started_at


def throughput(jobs):
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 300, random.integers(8, 33)).tolist() for _ in range(PROMPTS)]
    profile_seconds(jobs, prompts)
    job_times(jobs, prompts)
    ratios, added = [], []
    for _ in range(ROUNDS):  # In turns, so that the machine's mood meets both.
        profile = profile_seconds(jobs, prompts)
        whole, _ = job_times(jobs, prompts)
        ratios.append(profile / whole)
        added.append((whole - profile) / PROMPTS)
    ratio = statistics.median(ratios)
    row(
        f"a job of {PROMPTS} short prompts against Profile in full batches: {ratio:.2f}x the "
        f"throughput (at least 0.95x; {min(ratios):.2f} to {max(ratios):.2f})",
        ratio >= 0.95,
    )
    worst = max(added) * 1e3
    row(
        f"submission, database, files and fetching the state add {worst:.2f} ms a prompt (at most "
        "2 ms; the largest of all rounds)",
        worst < 2,
    )


def processor_seconds(server):
    return server.metric("process_cpu_seconds_total")


def watchers(server, jobs):
    """Messages that the watchers of a running job get, times what a message costs the server: its
    processor time as a whole is the job's."""
    job = jobs.submit("slow", prompts=[[5] * 400] * 2000, measures=["tolerance:1e-3", "entropy"])
    wait_for(lambda: jobs.get(job.id).state == RUNNING)
    stop = threading.Event()
    seen = [0] * WATCHERS

    def watch(index):
        with JobCalls(server.address, timeout=600) as own:
            stream = own.watch(job.id)
            for _ in stream:
                seen[index] += 1
                if stop.is_set():
                    stream.cancel()
                    return

    threads = [threading.Thread(target=watch, args=(i,)) for i in range(WATCHERS)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    before, seconds = sum(seen), 10
    time.sleep(seconds)
    rate = (sum(seen) - before) / seconds
    stop.set()
    jobs.cancel(job.id)
    for thread in threads:
        thread.join()
    cost = message_seconds(server, jobs)
    share = rate * cost
    row(
        f"{WATCHERS} watchers of a running job: {rate:.0f} messages a second, {cost * 1e6:.0f} us "
        f"of the server's processor each: {share:.2%} of a core (at most 1 %)",
        share < 0.01,
    )


def message_seconds(server, jobs, count=2000):
    """Processor time of the server for one job message: GetJob, which costs more than a message of
    a stream that is open."""
    job = jobs.end(jobs.submit("tiny", prompts=[[1]]).id)
    before = processor_seconds(server)
    for _ in range(count):
        jobs.get(job.id)
    return (processor_seconds(server) - before) / count


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "models"
        tiny_models.make_llama(root / "tiny")
        tiny_models.make_large_llama(root / "slow")
        with (
            ServerProcess(
                f"--model_root={root}", f"--state_dir={folder}/state", "--preload=tiny,slow"
            ) as server,
            JobCalls(server.address, timeout=600) as jobs,
        ):
            throughput(jobs)
            watchers(server, jobs)


if __name__ == "__main__":
    main()
