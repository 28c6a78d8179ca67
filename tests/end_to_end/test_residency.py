"""Models that do not fit into memory together, pins, replacing, and memory for profiles."""

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from ess_client import Client, DataLoss, EssError, InvalidArgument, ResourceExhausted
from ess_client._proto.ess.v1.profiler_pb2_grpc import EssProfilerStub

from ..faults.slow_reader import large_request, narrow_channel, read_one_message
from . import tiny_models
from .server_process import ServerProcess, wait_for

# The weights of the models here, 12 MB, are more than what a profile of a few tokens takes.
WIDTH = 256


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("residency")
    tiny_models.make_llama(root / "a", hidden_size=WIDTH, intermediate_size=4 * WIDTH)
    for name in ("b", "c"):
        shutil.copytree(root / "a", root / name)
    return root


@pytest.fixture(scope="module")
def weight_bytes(folders):
    return (folders / "a" / "model.safetensors").stat().st_size


@pytest.fixture
def serve(folders, tmp_path):
    """serve("field: value", ...): a server with these lines of configuration, and its client."""
    root = tmp_path / "models"
    shutil.copytree(folders, root)
    started = []

    def start(*lines):
        config = tmp_path / "server.textproto"
        config.write_text("\n".join([f'model_root: "{root}"', *lines]))
        server = ServerProcess(f"--config={config}")
        server.__enter__()
        client = Client(server.address)
        started.extend([client.close, lambda: server.__exit__(None, None, None)])
        server.root = root
        return server, client

    yield start
    for stop in started:
        stop()


def budget(weight_bytes, models):
    """Room for so many models and a half."""
    return f"device_memory_budget_bytes: {int(weight_bytes * (models + 0.5))}"


def state(client, name):
    model = client.model(name)
    return model.state, model.reason


def test_the_least_recently_used_model_goes_and_comes_back(serve, weight_bytes):
    server, client = serve(budget(weight_bytes, 2))
    before = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    client.load_model("b")
    client.load_model("c")
    assert state(client, "a") == ("cold", "evicted for 'c'")
    assert [client.model(name).state for name in "bc"] == ["ready", "ready"]
    after = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    assert (before == after).all()
    assert client.model("b").state == "cold"
    assert server.metric("ess_model_evictions_total", model="a", reason="load") == 1
    used = sum(client.model(name).weight_bytes for name in "abc")
    assert used <= server.metric("ess_device_memory_bytes", device="cpu", kind="budget")


def test_a_pinned_model_stays(serve, weight_bytes):
    _, client = serve(budget(weight_bytes, 2), "models { name: 'a' options { pinned: true } }")
    for name in "abc":
        client.load_model(name)
    assert [client.model(name).state for name in "abc"] == ["ready", "cold", "ready"]
    assert state(client, "a") == ("ready", "pinned")
    assert client.unload_model("a") > 0


def test_a_model_that_can_never_fit_is_refused_before_it_is_read(serve, weight_bytes):
    server, client = serve(f"device_memory_budget_bytes: {weight_bytes // 2}")
    with pytest.raises(ResourceExhausted, match=rf"{weight_bytes // 2} \(device_memory_budget"):
        client.load_model("a")
    assert client.model("a").state == "failed"
    assert server.metric("ess_model_load_duration_seconds_count", model="a", tier_from="disk") == 0
    with pytest.raises(ResourceExhausted, match="the model needs up to"):
        client.load_model("a", random_init=1, alias="drawn")


def test_a_profile_that_can_never_fit_is_refused_with_what_it_needs(serve, weight_bytes):
    _, client = serve(budget(weight_bytes, 1))
    client.profile("a", token_ids=[[1, 2, 3]])
    needed = client.estimate("a", token_ids=[[5] * 500] * 4).peak_bytes
    with pytest.raises(InvalidArgument, match=rf"needs up to {needed} bytes .* the limit is"):
        client.profile("a", token_ids=[[5] * 500] * 4)
    client.profile("a", token_ids=[[1, 2, 3]])


def test_a_profile_takes_the_room_of_models_that_nobody_uses(serve, weight_bytes):
    server, client = serve("device_memory_budget_bytes: 1000000000")
    needed = client.estimate("a", token_ids=[[5] * 500]).peak_bytes
    server, client = serve(f"device_memory_budget_bytes: {needed + weight_bytes + 1000000}")
    client.load_model("b")
    client.profile("a", token_ids=[[5] * 500])
    assert state(client, "b") == ("cold", "evicted for work of 'a'")
    assert server.metric("ess_model_evictions_total", model="b", reason="work") == 1


def test_many_callers_of_models_that_do_not_fit_together_are_all_answered(serve, weight_bytes):
    server, client = serve(
        budget(weight_bytes, 1), "eviction_patience_seconds: 0.05", "max_parallel_loads: 2"
    )
    expected = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    failures = []

    def call(name):
        try:
            with Client(server.address) as own:
                for _ in range(5):
                    values = own.profile(name, token_ids=[[1, 2, 3]], timeout=60).ess.values
                    assert (values == expected).all()
        except (EssError, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(name,)) for name in "abcabc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(client.unload_model(name) > 0 for name in "abc") == 1


def test_loads_that_wait_for_room_hold_up_no_other_call(serve, weight_bytes):
    request = large_request(model="a", prompts=8, measures=64)
    server, client = serve("device_memory_budget_bytes: 1000000000")
    with grpc.insecure_channel(server.address) as channel:
        needed = EssProfilerStub(channel).EstimateProfile(request).peak_bytes
    server, client = serve(
        f"device_memory_budget_bytes: {needed + weight_bytes * 3 // 2}",
        "eviction_patience_seconds: 3600",
    )
    with narrow_channel(server.address) as channel, ThreadPoolExecutor(16) as pool:
        reader = read_one_message(channel, request)
        loads = [pool.submit(client.load_model, "b", timeout=60) for _ in range(8)]
        wait_for(lambda: state(client, "b")[0] == "loading")

        assert client.estimate("a", token_ids=[[1, 2, 3]], timeout=10).peak_bytes > 0
        assert client.unload_model("c", timeout=10) == 0
        unload = pool.submit(client.unload_model, "a", timeout=60)
        wait_for(lambda: state(client, "a")[0] == "unloading")

        assert not any(call.done() for call in [unload, *loads])
        reader.cancel()
        assert unload.result() > 0
        assert {call.result().state for call in loads} == {"ready"}


def write_other_weights(folder, root):
    """The checkpoint of another seed, whole at once."""
    shutil.rmtree(root / "new", ignore_errors=True)
    tiny_models.make_llama(root / "new", hidden_size=WIDTH, intermediate_size=4 * WIDTH)
    path = root / "new" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\x00\x3f"
    path.write_bytes(content)
    path.rename(folder / "model.safetensors")
    shutil.rmtree(root / "new")


def test_a_reload_reads_the_new_weights(serve):
    server, client = serve()
    before = client.load_model("a")
    write_other_weights(server.root / "a", server.root)
    assert client.load_model("a").weight_digest == before.weight_digest
    after = client.load_model("a", reload=True)
    assert after.weight_digest != before.weight_digest
    assert server.metric("ess_model_bytes", model="a", tier="device") == after.weight_bytes
    assert client.profile("a", token_ids=[[1, 2, 3]]).model["weight_digest"] == after.weight_digest


def test_a_reload_without_room_for_both_frees_the_old_weights_first(serve, weight_bytes):
    server, client = serve(budget(weight_bytes, 1))
    before = client.load_model("a")
    write_other_weights(server.root / "a", server.root)
    after = client.load_model("a", reload=True)
    assert after.weight_digest != before.weight_digest
    assert "these go first" in server.log()


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def remove(folder):
    (folder / "model.safetensors").unlink()


def make_unreadable(folder):
    """A file that cannot be read even by root."""
    remove(folder)
    (folder / "model.safetensors").mkdir()


@pytest.mark.parametrize("damage", [truncate, remove, make_unreadable])
@pytest.mark.parametrize("models_that_fit", [1, 2])
def test_a_reload_that_fails_leaves_the_old_model_serving(
    serve, weight_bytes, damage, models_that_fit
):
    server, client = serve(budget(weight_bytes, models_that_fit))
    before = client.profile("a", token_ids=[[1, 2, 3]]).ess.values
    damage(server.root / "a")
    with pytest.raises(DataLoss):
        client.load_model("a", reload=True)
    model, reason = state(client, "a")
    assert model == "ready"
    assert re.match("serves the old weights; reload failed: DATA_LOSS: ", reason)
    assert (client.profile("a", token_ids=[[1, 2, 3]]).ess.values == before).all()


def test_weights_that_change_while_they_are_read_are_never_served_under_a_wrong_digest(serve):
    server, client = serve()
    client.load_model("a")
    path = server.root / "a" / "model.safetensors"
    stop = threading.Event()

    def touch():
        while not stop.is_set():
            path.touch()

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(DataLoss, match="changed while they were read"):
            for _ in range(100):
                client.load_model("a", reload=True)
    finally:
        stop.set()
        thread.join()
    assert client.model("a").state == "ready"
    client.load_model("a", reload=True)
    assert client.model("a").reason == ""


def test_a_load_that_failed_says_why_in_the_list(serve):
    server, client = serve()
    truncate(server.root / "b")
    with pytest.raises(DataLoss):
        client.load_model("b")
    reasons = {model.name: model.reason for model in client.models()}
    assert reasons["a"] == ""
    assert reasons["b"].startswith("load failed: DATA_LOSS: model.safetensors: ")
    client.unload_model("b")
    wait_for(lambda: client.model("b").state == "cold")
