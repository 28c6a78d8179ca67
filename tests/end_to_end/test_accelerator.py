"""The server on an accelerator: residency, and memory that runs out."""

import numpy as np
import pytest

from ess_client import Client, ResourceExhausted

from .accelerator import DEVICE, WHOLE_BUDGET, Accelerator
from .server_process import ServerProcess, run_server

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1]]


@pytest.fixture
def accelerator(tmp_path):
    return Accelerator(tmp_path / "accelerator")


@pytest.fixture
def device_client(accelerator, model_root):
    with (
        ServerProcess(f"--model_root={model_root}", environment=accelerator.environment) as server,
        Client(server.address, timeout=120) as client,
    ):
        yield client


def test_the_accelerator_is_the_default_device(accelerator, device_client):
    assert device_client.server_info().device == DEVICE
    model = device_client.load_model("tiny-llama")
    assert model.device == DEVICE
    assert accelerator["live_bytes"] >= model.weight_bytes


def test_a_device_that_is_not_there_is_refused(accelerator):
    run = run_server("--device=testaccelerator:1", environment=accelerator.environment)
    assert run.returncode == 1
    assert "'testaccelerator:1' is not on this machine, which has 1" in run.stderr


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2"])
def test_profiles_are_those_of_the_cpu(device_client, client, model):
    measures = ["tolerance:1e-3", "relative:1e-2", "entropy", "spectral_norm"]
    got = device_client.profile(model, token_ids=PROMPTS, measures=measures)
    expected = client.profile(model, token_ids=PROMPTS, measures=measures)
    counts = measures[:2]
    np.testing.assert_array_equal(got.ess.values[: len(counts)], expected.ess.values[: len(counts)])
    # Two routes: the entropy is promised to 1e-4 by each.
    np.testing.assert_allclose(got.ess.values, expected.ess.values, rtol=2e-4, atol=1e-6)
    assert set(got.ess.measure.values) == set(expected.ess.measure.values)


def test_unloading_gives_the_devices_memory_back(accelerator, device_client):
    for _ in range(2):
        device_client.profile("tiny-llama", token_ids=PROMPTS)
        device_client.load_model("tiny-gpt2")
        for model in ("tiny-llama", "tiny-gpt2"):
            held = accelerator["live_bytes"]
            released = device_client.unload_model(model)
            assert held - accelerator["live_bytes"] >= released > 0
        assert accelerator["live_bytes"] == 0


def test_a_model_larger_than_the_device_is_refused_until_there_is_room(accelerator, device_client):
    accelerator["byte_budget"] = 10_000
    with pytest.raises(ResourceExhausted, match=r"Tried to allocate \d+ bytes.*of 10000 bytes"):
        device_client.load_model("tiny-llama")
    assert accelerator["live_bytes"] == 0
    accelerator["byte_budget"] = WHOLE_BUDGET
    assert device_client.load_model("tiny-llama").state == "ready"


def test_a_profile_that_runs_out_at_any_allocation_leaves_the_model_as_it_was(
    accelerator, device_client
):
    def profile():
        return device_client.profile(
            "tiny-llama", token_ids=[[3, 1, 4]], layers=[0], measures=["tolerance:1e-3"]
        ).ess.values

    before = profile()
    held = accelerator["live_bytes"]
    failures = 0
    while True:
        accelerator["allocations_to_failure"] = failures + 1
        try:
            after = profile()
            break
        except ResourceExhausted as error:
            assert "Tried to allocate" in str(error) and "bytes are free" in str(error)
        failures += 1
        assert accelerator["failures"] == failures
        assert accelerator["live_bytes"] == held
    assert failures > 50
    np.testing.assert_array_equal(after, before)
