"""kill -9 of the server at every stage of a job, and at random moments: after a restart the job
goes on where it was, to the same bytes, and nobody ever sees half a result."""

import contextlib
import random
import threading
import time

import grpc
import pytest

from tests.end_to_end import tiny_models
from tests.end_to_end.job_calls import RUNNING, SUCCEEDED
from tests.end_to_end.server_process import wait_for
from tests.faults.job_server import JOB_POINTS, JobServer

RANDOM = random.Random(7)
PROMPTS = [[RANDOM.randrange(300) for _ in range(RANDOM.randint(1, 24))] for _ in range(300)]
GROUPS, LAYERS = 2, 3  # 256 prompts and 44.
FIELDS = {"model": "tiny", "prompts": PROMPTS, "measures": ["tolerance:1e-3", "entropy"]}
SUBMISSION = ("job_spooled", "job_named", "job_inserted")
# Times that a point is passed first: the fourth layer is the first of the second group.
PASSED = {"job_values": 500, "job_layer": 3, "job_layer_saved": 3, "job_prepare": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_models.make_llama(folder / "tiny")
    return folder


@pytest.fixture
def server(models, tmp_path):
    (tmp_path / "models").symlink_to(models)
    return JobServer(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(models, tmp_path_factory):
    """The bytes of the result of a run that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "models").symlink_to(models)
    server = JobServer(folder)
    server.start()
    job = server.end_of(server.jobs.submit(**FIELDS).id)
    assert job.state == SUCCEEDED, job.error_message
    assert (job.restarts, server.count("job_layer")) == (0, GROUPS * LAYERS)
    result = server.jobs.result(job.id)
    server.stop()
    return result


def results_are_whole(server, undisturbed):
    return all(path.read_bytes() == undisturbed for path in server.results())


def submit_beside(server):
    """In a thread, for calls that stand still."""

    def submit():
        with contextlib.suppress(grpc.RpcError):
            server.jobs.submit(**FIELDS, idempotency_key="key")

    thread = threading.Thread(target=submit)
    thread.start()
    return thread


@pytest.mark.parametrize("point", JOB_POINTS)
def test_a_kill_at_any_stage_leads_to_the_same_result(server, undisturbed, point):
    passed = PASSED.get(point, 0)
    server.start(held=point, skip=passed)
    thread = submit_beside(server)
    server.wait_for_point(point, passed + 1)
    saved = server.count("job_layer_saved")
    assert results_are_whole(server, undisturbed)

    server.kill()
    thread.join()
    assert results_are_whole(server, undisturbed)
    server.start()

    # Who got no answer submits again; the key makes it the same job.
    job = server.end_of(server.jobs.submit(**FIELDS, idempotency_key="key").id)
    assert job.state == SUCCEEDED, job.error_message
    assert server.jobs.result(job.id) == undisturbed
    assert len(server.jobs.list().jobs) == 1
    started_before = point not in (*SUBMISSION, "job_ended")
    assert job.restarts == (1 if started_before else 0)
    # What was saved is not computed again.
    done_before = point in ("job_header", "job_whole", "job_result", "job_run", "job_ended")
    expected = 0 if done_before else GROUPS * LAYERS - saved
    assert server.count("job_layer") == expected
    folder = server.state / "jobs" / job.id
    # The rest is removed a moment after the end is known.
    kept = ["result.safetensors", "run.json"]
    wait_for(lambda: sorted(path.name for path in folder.iterdir()) == kept)
    server.stop()


def test_kills_at_random_moments_lead_to_the_same_result(server, undisturbed):
    moments = random.Random(3)
    server.start()
    job_id = server.jobs.submit(**FIELDS).id
    for _ in range(4):  # Five without progress would give it up.
        time.sleep(moments.uniform(0, 0.25))
        server.kill()
        assert results_are_whole(server, undisturbed)
        server.start()

    job = server.end_of(job_id)

    assert job.state == SUCCEEDED, job.error_message
    assert server.jobs.result(job_id) == undisturbed
    server.stop()


def test_a_job_that_always_ends_the_server_is_given_up(server):
    server.start(held="job_values")
    job_id = server.jobs.submit(**FIELDS).id
    for _ in range(5):
        server.wait_for_point("job_values")
        server.kill()
        server.start(held="job_values")

    job = server.end_of(job_id)

    assert job.error_code == "INTERNAL"
    assert "5 times" in job.error_message
    server.stop()


def test_sigterm_puts_the_job_back_and_the_next_start_goes_on(server, undisturbed):
    server.start(held="job_layer_saved", skip=2)
    job_id = server.jobs.submit(**FIELDS).id
    server.wait_for_point("job_layer_saved", 3)
    watch = server.jobs.watch(job_id)
    assert next(watch).state == RUNNING
    begin = time.monotonic()

    server.process.process.terminate()
    with pytest.raises(grpc.RpcError) as error:
        list(watch)
    server.hold_file.unlink()
    assert server.process.process.wait(30) == 0

    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - begin < 20  # It did not wait for the job.
    server.stop()
    server.start()
    job = server.end_of(job_id)
    assert job.state == SUCCEEDED
    assert job.restarts == 1
    assert server.jobs.result(job_id) == undisturbed
    assert server.count("job_layer") == GROUPS * LAYERS - 3
    server.stop()
