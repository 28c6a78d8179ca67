"""A device that breaks for good, in a real server."""

import signal

import pytest

from ess_client import Client, Internal, ResourceExhausted, Unavailable

from .accelerator import DEVICE, Accelerator
from .health import LIVENESS, READINESS, is_serving
from .server_process import ServerProcess, wait_for

EXIT_CODE = 3  # docs/operations.md: the device has failed.
PROMPTS = [[3, 1, 4]]


@pytest.fixture
def accelerator(tmp_path):
    return Accelerator(tmp_path / "accelerator")


def serve(accelerator, model_root, tmp_path, seconds, *flags):
    config = tmp_path / "server.textproto"
    config.write_text(f"device_failure_seconds: {seconds}")
    return ServerProcess(
        f"--config={config}",
        f"--model_root={model_root}",
        *flags,
        environment=accelerator.environment,
    )


def break_device(accelerator, client):
    accelerator["allocations_to_break"] = 5
    with pytest.raises(Internal, match="illegal memory access.*until the server is started again"):
        client.profile("tiny-llama", token_ids=PROMPTS)


def test_a_broken_device_is_seen_by_every_probe_and_in_the_exit_code(
    accelerator, model_root, tmp_path
):
    with (
        serve(accelerator, model_root, tmp_path, 600) as server,
        Client(server.address) as client,
    ):
        client.load_model("tiny-llama")
        assert server.metric("ess_device_healthy", device=DEVICE) == 1
        assert all(is_serving(server.address, name) for name in (*READINESS, LIVENESS))

        break_device(accelerator, client)

        for name in (*READINESS, LIVENESS):
            wait_for(lambda name=name: not is_serving(server.address, name))
        wait_for(lambda: server.metric("ess_device_healthy", device=DEVICE) == 0)
        wait_for(lambda: "the device has failed: " in server.log())
        with pytest.raises(Unavailable):
            client.profile("tiny-llama", token_ids=PROMPTS)
        assert client.models()  # What needs no device still answers.

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == EXIT_CODE


def test_a_server_whose_device_broke_ends_by_itself(accelerator, model_root, tmp_path):
    with (
        serve(accelerator, model_root, tmp_path, 0.2) as server,
        Client(server.address) as client,
    ):
        client.load_model("tiny-llama")
        break_device(accelerator, client)
        assert server.process.wait(60) == EXIT_CODE


def test_a_device_that_breaks_at_start_up_never_serves(accelerator, model_root, tmp_path):
    accelerator["allocations_to_break"] = 5
    with serve(accelerator, model_root, tmp_path, 600, "--preload=tiny-llama") as server:
        assert not is_serving(server.address)
        wait_for(lambda: not is_serving(server.address, LIVENESS))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == EXIT_CODE


def test_running_out_of_memory_is_no_failure_of_the_device(accelerator, model_root, tmp_path):
    with (
        serve(accelerator, model_root, tmp_path, 600) as server,
        Client(server.address) as client,
    ):
        client.load_model("tiny-llama")
        accelerator["allocations_to_failure"] = 5
        with pytest.raises(ResourceExhausted):
            client.profile("tiny-llama", token_ids=PROMPTS)
        client.load_model("tiny-gpt2")
        assert all(is_serving(server.address, name) for name in (*READINESS, LIVENESS))
        assert server.metric("ess_device_healthy", device=DEVICE) == 1
