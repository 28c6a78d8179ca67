"""Models that do not fit onto the accelerator together: the host tier, and the device's budget."""

import pytest

from ess_client import Client, InvalidArgument, ResourceExhausted

from . import tiny_models
from .accelerator import DEVICE, Accelerator
from .server_process import ServerProcess


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models of about 12 MB, more than what a profile of a few tokens takes."""
    root = tmp_path_factory.mktemp("accelerator_residency")
    for name in "abc":
        tiny_models.make_llama(root / name, hidden_size=256, intermediate_size=1024)
    return root


@pytest.fixture
def serve(folders, tmp_path):
    """serve(lines of configuration, models that fit): accelerator, server and client."""
    weight_bytes = (folders / "a" / "model.safetensors").stat().st_size
    started = []

    def start(*lines, models_that_fit=2):
        config = tmp_path / "server.textproto"
        budget = f"device_memory_budget_bytes: {int(weight_bytes * (models_that_fit + 0.5))}"
        config.write_text("\n".join([f'model_root: "{folders}"', budget, *lines]))
        accelerator = Accelerator(tmp_path / "accelerator")
        server = ServerProcess(f"--config={config}", environment=accelerator.environment)
        server.__enter__()
        client = Client(server.address, timeout=120)
        started.extend([client.close, lambda: server.__exit__(None, None, None)])
        return accelerator, server, client

    yield start
    for stop in started:
        stop()


def loads(server, model, tier):
    name = "ess_model_load_duration_seconds_count"
    return server.metric(name, model=model, tier_from=tier)


def test_an_evicted_model_comes_back_from_host_memory(serve):
    accelerator, server, client = serve()
    digest = client.load_model("a").weight_digest
    before = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    client.load_model("b")
    client.load_model("c")
    assert client.model("a").state == "cold"
    assert server.metric("ess_model_bytes", model="a", tier="device") == 0
    assert server.metric("ess_model_bytes", model="a", tier="host") > 0
    after = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    assert (before == after).all()
    assert client.model("a").weight_digest == digest
    assert (loads(server, "a", "disk"), loads(server, "a", "host")) == (1, 1)
    held = server.metric("ess_device_memory_bytes", device=DEVICE, kind="allocated")
    assert 0 < held <= server.metric("ess_device_memory_bytes", device=DEVICE, kind="budget")
    assert accelerator["peak_bytes"] <= server.metric(
        "ess_device_memory_bytes", device=DEVICE, kind="budget"
    )


def test_without_a_host_tier_it_comes_back_from_disk(serve):
    _, server, client = serve("host_memory_budget_bytes: 0")
    for name in "abca":
        client.load_model(name)
    assert (loads(server, "a", "disk"), loads(server, "a", "host")) == (2, 0)


def test_the_host_tier_has_a_budget_of_its_own(serve, folders):
    weight_bytes = (folders / "a" / "model.safetensors").stat().st_size
    _, server, client = serve(f"host_memory_budget_bytes: {int(1.5 * weight_bytes)}")
    for name in "abca":
        client.load_model(name)
    assert loads(server, "a", "host") == 0
    assert server.metric("ess_model_evictions_total", model="a", reason="host") == 1


def test_unloading_leaves_nothing_on_either_tier(serve):
    accelerator, server, client = serve()
    client.load_model("a")
    client.unload_model("a")
    assert accelerator["live_bytes"] == 0
    assert server.metric("ess_model_bytes", model="a", tier="host") == 0
    client.load_model("a")
    assert loads(server, "a", "host") == 0


def test_a_reload_reads_the_files_again(serve):
    _, server, client = serve()
    client.load_model("a")
    client.load_model("a", reload=True)
    assert loads(server, "a", "disk") == 2


def test_what_can_never_fit_is_refused_with_the_devices_budget(serve):
    _, _, client = serve(models_that_fit=0)
    with pytest.raises(ResourceExhausted, match=rf"bytes on {DEVICE}; the limit is \d+"):
        client.load_model("a")


def test_a_profile_that_can_never_fit_is_refused_before_it_takes_any_memory(serve):
    accelerator, _, client = serve(models_that_fit=1)
    held = client.load_model("a") and accelerator["live_bytes"]
    with pytest.raises(InvalidArgument, match="bytes of memory beside model 'a'"):
        client.profile("a", token_ids=[[5] * 500] * 8)
    assert accelerator["live_bytes"] == held
