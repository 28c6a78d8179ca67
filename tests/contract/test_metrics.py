"""Each metric of the catalogue is exported by the real server once its feature has moved it."""

import threading

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ess_client import Client, DenseOperator, EssError
from tests.end_to_end import tiny_models
from tests.end_to_end.job_calls import JobCalls
from tests.end_to_end.server_process import ServerProcess, wait_for
from tests.tidy.test_metrics_document import OTHERS, catalogue


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Names of the samples of a server that has seen everything that metrics count."""
    root = tmp_path_factory.mktemp("metrics")
    tiny_models.make_llama(root / "good")
    tiny_models.make_llama(root / "nan")
    tiny_models.make_large_llama(root / "slow")
    put_nan_into(root / "nan")
    config = root / "server.textproto"
    config.write_text("max_queued_profiles: 1")
    with (
        ServerProcess(
            f"--config={config}",
            f"--model_root={root}",
            f"--state_dir={tmp_path_factory.mktemp('state')}",
            "--preload=slow",
        ) as server,
        Client(server.address) as client,
        JobCalls(server.address) as jobs,
    ):
        client.profile("good", token_ids=[[1, 2, 3, 4]])
        with pytest.raises(EssError):
            client.profile("nan", token_ids=[[1, 2, 3]])
        fill_the_queue(server)
        client.profile("good", token_ids=[[1, 2]])
        client.estimate("good", token_ids=[[1, 2]])
        client.profile("good", token_ids=[[1, 2]], horizon=2)
        client.profile_operators(DenseOperator(np.tril(np.ones((3, 8, 8)))))
        # Not of the metrics' measure: the utilization below is the profiles'.
        jobs.end(jobs.submit("good", prompts=[[1, 2]], measures=["entropy"]).id)
        server.wait_until_idle()
        samples = server.metrics()
    return samples | evictions(root)


def evictions(root):
    """Of a server that has room for one of two models."""
    name = "ess_model_evictions_total"
    room = int(1.5 * (root / "good" / "model.safetensors").stat().st_size)
    config = root / "small.textproto"
    config.write_text(f"device_memory_budget_bytes: {room}")
    with (
        ServerProcess(f"--config={config}", f"--model_root={root}") as server,
        Client(server.address) as client,
    ):
        client.load_model("good")
        client.load_model("nan")
        return {key: value for key, value in server.metrics().items() if key[0] == name}


def put_nan_into(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def fill_the_queue(server):
    """One profile runs and is cancelled by its deadline, one waits, one is refused."""
    started = threading.Event()

    def run(event):
        with Client(server.address, retries=0) as client, pytest.raises(EssError):
            client.profile(
                "slow",
                token_ids=[[5] * 900] * 8,
                timeout=4,
                progress=lambda _: event and event.set(),
            )

    threads = [threading.Thread(target=run, args=(started,))]
    threads[0].start()
    assert started.wait(60)
    threads.append(threading.Thread(target=run, args=(None,)))
    threads[1].start()
    wait_for(lambda: server.metric("ess_queue_requests", model="slow", priority="normal") == 1)
    with Client(server.address, retries=0) as client, pytest.raises(EssError):
        client.profile("slow", token_ids=[[1]])
    for thread in threads:
        thread.join()


def samples_of(samples, name, kind):
    suffix = "_count" if kind == "histogram" else ""
    return {labels: value for (n, labels), value in samples.items() if n == name + suffix}


# Gauges that are 0 at rest, and counters that are 0 unless a layer is saturated or idle, or a
# reader is slow.
MAY_BE_ZERO = {
    "ess_requests_in_flight",
    "ess_queue_requests",
    "ess_queue_tokens",
    "ess_state_saturated_observations_total",
    "ess_state_idle_observations_total",
}
# Moved only by a reader slower than the profile: see test_slow_reader in tests/end_to_end.
NEEDS_A_SLOW_READER = {"ess_stream_stalled_seconds_total"}


@pytest.mark.parametrize("name", sorted(set(catalogue()) - NEEDS_A_SLOW_READER))
def test_a_metric_moves_with_its_feature_and_has_its_labels(samples, name):
    kind, labels = catalogue()[name]
    series = samples_of(samples, name, kind)
    assert series, f"{name} is not exported"
    assert {frozenset(key for key, _ in s) for s in series} == {frozenset(labels)}
    if name not in MAY_BE_ZERO:
        assert any(value != 0 for value in series.values())


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_metrics_outside_the_catalogue_are_exported(samples, name):
    assert any(n == name and value > 0 for (n, _), value in samples.items())


def test_a_name_the_server_does_not_serve_makes_no_series(samples):
    models = {value for _, labels in samples for key, value in labels if key == "model"}
    assert models <= {"", "good", "nan", "slow"}


def test_operators_of_callers_are_counted_and_timed_without_a_model(samples):
    rpc = ("rpc", "ProfileOperators")
    assert samples[("ess_requests_total", (("code", "OK"), ("model", ""), rpc))] == 1
    assert samples[("ess_grpc_received_bytes_total", (rpc,))] > 3 * 8 * 8 * 8
    assert samples[("ess_grpc_sent_bytes_total", (rpc,))] > 3 * 8 * 4
    for stage in ("receive", "queue", "ess", "send"):
        name = "ess_stage_duration_seconds_count"
        assert samples[(name, (("model", ""), ("stage", stage)))] == 1


def test_utilization_is_a_ratio_of_the_sums(samples):
    labels = (("layer", "001"), ("model", "good"))
    ess = samples[("ess_effective_state_size_sum_total", labels)]
    tss = samples[("ess_state_size_sum_total", labels)]
    assert 0 < ess <= tss
    # Prompts of 4 and 2 tokens, 4 heads of 8 channels, TSS 1 + 2 + 3 and 1. A profile with a
    # horizon and an estimate are not observed.
    assert tss == 4 * 8 * (6 + 1)
    assert samples[("ess_observations_total", labels)] == 2
