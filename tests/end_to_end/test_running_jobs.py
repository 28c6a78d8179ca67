"""Jobs while they run: cancels, priorities, progress, watchers; with plain stubs."""

import threading
import time

import pytest
from grpc import StatusCode

from ess_client import Client

from .job_calls import CANCELLED, ENDED, RUNNING, SUCCEEDED, JobCalls, error_of
from .server_process import ServerProcess, wait_for

TEXTS = ["the quick brown fox", "the dog sleeps.", "fox; dog"]


@pytest.fixture(scope="module")
def server(model_root, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    with ServerProcess(f"--model_root={model_root}", f"--state_dir={state}") as process:
        yield process


@pytest.fixture
def jobs(server):
    with JobCalls(server.address) as calls:
        yield calls


@pytest.fixture
def client(server):
    with Client(server.address, timeout=120) as connected:
        yield connected


def test_a_job_is_cancelled_while_it_runs_and_others_go_on(jobs):
    long = jobs.submit(prompts=[[7] * 500] * 300, measures=["singular_values:4"])
    wait_for(lambda: jobs.get(long.id).progress > 0)

    cancelled = jobs.cancel(long.id)
    other = jobs.end(jobs.submit(prompts=TEXTS).id)

    assert cancelled.state == CANCELLED
    assert cancelled.finished_at > 0
    assert jobs.end(long.id).state == CANCELLED
    assert jobs.cancel(long.id) == jobs.get(long.id)
    assert other.state == SUCCEEDED
    code, text = error_of(jobs.fetch, long.id)
    assert code == StatusCode.FAILED_PRECONDITION
    assert "cancelled" in text


def test_a_deleted_job_is_gone_and_its_watchers_know(jobs, server):
    long = jobs.submit(prompts=[[7] * 500] * 300, measures=["singular_values:4"])
    watched = jobs.watch(long.id)
    next(watched)

    jobs.delete(long.id)

    assert error_of(lambda: watched)[0] == StatusCode.NOT_FOUND
    for call in (jobs.get, jobs.cancel, jobs.delete, jobs.fetch):
        assert error_of(call, long.id)[0] == StatusCode.NOT_FOUND
    assert jobs.end(jobs.submit(prompts=[[1]]).id).state == SUCCEEDED


def test_a_job_for_a_model_that_was_unloaded_loads_it_again(jobs, client):
    jobs.end(jobs.submit("tiny-gpt2", prompts=[[1, 2]]).id)
    client.unload_model("tiny-gpt2")

    job = jobs.end(jobs.submit("tiny-gpt2", prompts=[[1, 2]]).id)

    assert job.state == SUCCEEDED


def test_interactive_calls_go_first(jobs, client):
    request = {"token_ids": [[3] * 400], "measures": ["tolerance:1e-3"]}
    client.profile("tiny-llama", **request)
    alone = min(seconds_of(lambda: client.profile("tiny-llama", **request)) for _ in range(3))
    long = jobs.submit(prompts=[[7] * 400] * 200, measures=["tolerance:1e-3", "entropy"])
    wait_for(lambda: jobs.get(long.id).progress > 0)

    beside = [seconds_of(lambda: client.profile("tiny-llama", **request)) for _ in range(5)]

    assert jobs.get(long.id).state == RUNNING
    jobs.cancel(long.id)
    # One step of the job, a layer of a prompt, is about a third of the call.
    assert min(beside) < 3 * alone + 0.1


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_the_higher_priority_is_done_first(jobs):
    low = jobs.submit(prompts=[[7] * 300] * 400, priority=1)
    wait_for(lambda: jobs.get(low.id).state == RUNNING)

    high = jobs.end(jobs.submit(prompts=[[1, 2]], priority=3).id)

    assert high.state == SUCCEEDED
    assert jobs.get(low.id).state not in ENDED
    jobs.cancel(low.id)


def test_progress_grows_and_the_time_left_shrinks_to_the_truth(jobs):
    job = jobs.submit(prompts=[[7] * 100] * 600, measures=["tolerance:1e-3", "entropy"])

    seen = [(time.time(), message) for message in jobs.watch(job.id)]

    progress = [message.progress for _, message in seen]
    assert progress == sorted(progress)
    assert seen[-1][1].state == SUCCEEDED
    end = seen[-1][1].finished_at
    estimates = [(t, m.seconds_left) for t, m in seen if m.HasField("seconds_left")]
    assert all(m.prompts_done > 0 for _, m in seen if m.HasField("seconds_left"))
    assert estimates
    for moment, left in estimates[len(estimates) // 2 :]:
        assert left < 4 * (end - moment) + 2


def test_many_watchers_see_the_same_end(server):
    with JobCalls(server.address) as jobs:
        job = jobs.submit(prompts=[[7] * 200] * 100)
        ends = []

        def watch():
            with JobCalls(server.address) as own:
                ends.append(own.end(job.id))

        threads = [threading.Thread(target=watch) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(ends) == 10
        assert all(end.state == SUCCEEDED for end in ends)


def test_the_log_names_the_job(server, jobs):
    job = jobs.end(jobs.submit(prompts=TEXTS).id)

    lines = [line for line in server.log().splitlines() if job.id in line]

    assert any("event=submitted" in line for line in lines)
    assert any("event=ended" in line and "state=succeeded" in line for line in lines)
    assert any("rpc=SubmitJob" in line for line in lines)
