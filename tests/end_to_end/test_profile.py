"""Profile over the wire, against float64 SVDs of the public implementation's attention maps."""

import threading
import time

import grpc
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from ess_client import Cancelled, Client, DeadlineExceeded, EssError, ResourceExhausted
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc

from . import tiny_models
from .server_process import ServerProcess, wait_for

IDS = [[7, 3, 250, 11, 12, 4, 99, 42, 8, 120, 5, 17, 33, 2, 61, 200, 150], [9, 8, 7, 6, 5], [1]]


def singular_values(operator):
    """Of each H_i = T[i:, :i], largest first; empty at position 0."""
    length = len(operator)
    return [
        np.linalg.svd(operator[i:, :i], compute_uv=False) if i else np.zeros(0)
        for i in range(length)
    ]


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-gpt2"])
def public(request, model_root):
    """(name, operators[prompt][layer][head]) in float64, from transformers in float32, eager."""
    model = AutoModelForCausalLM.from_pretrained(
        model_root / request.param, dtype=torch.float32, attn_implementation="eager"
    )
    operators = []
    with torch.no_grad():
        for ids in IDS:
            maps = model(torch.tensor([ids]), output_attentions=True).attentions
            operators.append([layer[0].double().numpy() for layer in maps])
    return request.param, operators


def test_counts_lie_between_the_public_ones_at_close_tolerances(client, public):
    name, operators = public
    measures = [f"tolerance:{tolerance}" for tolerance in (1e-1, 1e-2, 1e-3)]
    profile = client.profile(name, token_ids=IDS, measures=measures)
    compared = 0
    for measure, tolerance in zip(measures, (1e-1, 1e-2, 1e-3), strict=True):
        for p, maps in enumerate(operators):
            for layer, heads in zip(profile.layer_names, maps, strict=True):
                ours = profile[layer, measure].values[p]
                for h, operator in enumerate(heads):
                    for i, sigmas in enumerate(singular_values(operator)):
                        width = 1e-4 * tolerance + 1e-5
                        low = (sigmas > tolerance + width).sum()
                        high = (sigmas > tolerance - width).sum()
                        assert low <= ours[h, i] <= high
                        compared += 1
    assert compared > 500


def test_every_measure_equals_its_definition(client, public):
    name, operators = public
    profile = client.profile(
        name,
        token_ids=IDS,
        measures=[
            "entropy",
            "spectral_norm",
            "frobenius_norm",
            "singular_values:3",
            "relative:0.05",
            "head_relative:0.05",
        ],
    )
    for p, maps in enumerate(operators):
        for layer, heads in zip(profile.layer_names, maps, strict=True):
            for h, operator in enumerate(heads):
                sigmas = singular_values(operator)
                largest = max((s[0] for s in sigmas if len(s)), default=0)
                for i, s in enumerate(sigmas):
                    value = {m: profile[layer, m].values[p, h, i] for m in profile.measure_names}
                    padded = np.zeros(3)
                    padded[: min(3, len(s))] = s[:3]
                    np.testing.assert_allclose(value["singular_values:3"], padded, atol=1e-4)
                    if not len(s):
                        assert value["entropy"] == value["spectral_norm"] == 0
                        continue
                    shares = s[s > 0] / s.sum()
                    np.testing.assert_allclose(
                        value["entropy"], np.exp(-(shares * np.log(shares)).sum()), rtol=1e-3
                    )
                    np.testing.assert_allclose(value["spectral_norm"], s[0], atol=1e-4)
                    np.testing.assert_allclose(
                        value["frobenius_norm"], np.linalg.norm(s), atol=1e-4
                    )
                    for measure, scale in (
                        ("relative:0.05", 0.05 * s[0]),
                        ("head_relative:0.05", 0.05 * largest),
                    ):
                        width = 1e-3 * scale + 1e-5
                        assert (s > scale + width).sum() <= value[measure]
                        assert value[measure] <= (s > scale - width).sum()


def test_the_noise_floor_is_as_defined(client, public):
    name, operators = public
    profile = client.profile(name, token_ids=IDS)
    for layer, heads in zip(profile.layers, operators[0], strict=True):
        for h, operator in enumerate(heads):
            largest = max(s[0] for s in singular_values(operator) if len(s))
            expected = np.finfo(np.float32).eps * largest * np.sqrt(len(operator))
            np.testing.assert_allclose(layer.noise_floors[0, h], expected, rtol=1e-3)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2"])
def test_a_prompt_answers_the_same_bits_alone_and_in_any_batch(client, model):
    measures = ["tolerance:1e-3", "entropy", "spectral_norm"]
    together = client.profile(model, token_ids=IDS + IDS[::-1], measures=measures)
    for p, ids in enumerate(IDS):
        alone = client.profile(model, token_ids=[ids], measures=measures).ess.values[:, :, 0]
        for batched in (p, 2 * len(IDS) - 1 - p):
            in_batch = together.ess.values[:, :, batched][..., : len(ids)]
            np.testing.assert_array_equal(alone, in_batch)
            assert np.isnan(together.ess.values[:, :, batched][..., len(ids) :]).all()


def test_selections_pick_from_the_full_answer(client):
    full = client.profile("tiny-llama", token_ids=IDS)
    part = client.profile(
        "tiny-llama", token_ids=IDS, layers="1-2", heads=[0, 3], positions="0-16:4"
    )
    assert part.layer_names == ["001", "002"]
    np.testing.assert_array_equal(
        part.ess.values,
        full.ess.sel(layer=["001", "002"], head=[0, 3], position=[0, 4, 8, 12, 16]).values,
    )


@pytest.mark.parametrize("measures", [["tolerance:1e-2"], ["singular_values:2", "entropy"]])
def test_reductions_are_weighted_means_of_the_full_answer(client, measures):
    full = client.profile("tiny-llama", token_ids=IDS, measures=measures)

    heads = client.profile("tiny-llama", token_ids=IDS, measures=measures, reduce="heads")
    positions = client.profile("tiny-llama", token_ids=IDS, measures=measures, reduce="positions")

    # Every head of this model has as many channels as the next.
    np.testing.assert_allclose(heads.ess, full.ess.mean("head", skipna=True), rtol=1e-5)
    inner = full.ess.isel(position=slice(1, None))
    np.testing.assert_allclose(positions.ess, inner.mean("position", skipna=True), rtol=1e-5)
    assert np.isnan(positions.ess.sel(prompt="2")).all()  # One token.
    for profile in (heads, positions):
        np.testing.assert_allclose(profile.average(), full.average(), rtol=1e-5)
        np.testing.assert_allclose(profile.utilization(), full.utilization(), rtol=1e-5)


def test_a_horizon_cuts_the_future(client, public):
    name, operators = public
    profile = client.profile(name, token_ids=IDS, measures="frobenius_norm", horizon=3)
    assert profile.options == {"horizon": 3}
    for p, maps in enumerate(operators):
        for layer, heads in zip(profile.layer_names, maps, strict=True):
            for h, operator in enumerate(heads):
                expected = [np.linalg.norm(operator[i : i + 3, :i]) for i in range(len(operator))]
                found = profile[layer].values[0, p, h, : len(operator)]
                np.testing.assert_allclose(found, expected, atol=1e-4)


def test_certified_counts_are_the_same_and_flagged(client):
    measures = ["tolerance:1e-2", "entropy"]
    plain = client.profile("tiny-llama", token_ids=IDS, measures=measures)

    certified = client.profile("tiny-llama", token_ids=IDS, measures=measures, certify=True)

    np.testing.assert_array_equal(plain.ess.values, certified.ess.values)
    counts = certified.certain.sel(measure="tolerance:0.01").values
    present = ~np.isnan(certified.ess.sel(measure="tolerance:0.01").values)
    assert counts[present].all()
    assert not counts[~present].any()


def test_text_is_tokenized_as_the_public_tokenizer_does(client, model_root):
    texts = ["the lazy dog", "jumps!\n  over  \u00e9\u4f60 \U0001f600", "<|end|>fox"]
    profile = client.profile("tiny-llama", prompts=texts)
    tokenizer = Tokenizer.from_file(str(model_root / "tiny-llama" / "tokenizer.json"))
    for prompt, text in zip(profile.prompts, texts, strict=True):
        assert list(prompt.token_ids) == tokenizer.encode(text).ids
    assert "".join(profile.prompts[0].tokens) == texts[0]


def test_concurrent_callers_get_the_same_bits(server):
    def profile():
        with Client(server.address, timeout=120) as client:
            return client.profile("tiny-llama", token_ids=IDS, measures="entropy").ess.values

    expected = profile()
    results = [None] * 8

    def run(index):
        results[index] = profile()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_layers_stream_in_order_and_no_message_exceeds_one_mebibyte(server):
    with grpc.insecure_channel(server.address) as channel:
        request = profiler_pb2.ProfileRequest(
            model="tiny-llama",
            prompts=[profiler_pb2.Prompt(token_ids=profiler_pb2.TokenIds(ids=[1] * 500))] * 20,
            measures=[measures_pb2.Measure(singular_values=64)],
            heads=measures_pb2.IndexSelection(ranges=[measures_pb2.IndexRange(first=0, last=0)]),
            positions=measures_pb2.IndexSelection(
                ranges=[measures_pb2.IndexRange(first=0, last=499, stride=16)]
            ),
        )
        for i, prompt in enumerate(request.prompts):
            prompt.id = str(i)
        messages = list(profiler_pb2_grpc.EssProfilerStub(channel).Profile(request))
    kinds = [message.WhichOneof("message") for message in messages]
    assert kinds[0] == "header"
    assert kinds == sorted(kinds, key=["header", "tokens", "ess", "summary"].index)
    assert messages[-1].summary.last
    assert max(message.ByteSize() for message in messages) <= 1 << 20
    layers = [s.layer for message in messages for s in message.ess.slices]
    assert layers == sorted(layers)


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("slow")
    tiny_models.make_large_llama(root / "slow")
    with ServerProcess(f"--model_root={root}", "--preload=slow") as process:
        yield process


SLOW = {"token_ids": [[5] * 900] * 8, "measures": ["tolerance:1e-3", "head_relative:1e-2"]}


def assert_free_soon(client, server, stage):
    """The work has stopped: a small profile is answered, and the cancel is counted."""
    client.profile("slow", token_ids=[[1, 2, 3]], timeout=20)
    wait_for(lambda: server.metric("ess_requests_cancelled_total", model="slow", stage=stage) >= 1)
    wait_for(lambda: server.metric("ess_requests_in_flight", model="slow", rpc="Profile") == 0)


def test_a_cancelled_call_stops_between_two_layers(slow_server):
    with Client(slow_server.address) as client:
        layers_seen = []

        def leave(progress):
            layers_seen.append(progress)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.profile("slow", **SLOW, progress=leave)
        assert len(layers_seen) == 1
        assert_free_soon(client, slow_server, "running")


def test_a_deadline_stops_the_work(slow_server):
    with Client(slow_server.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.profile("slow", **SLOW, timeout=0.5)
        assert_free_soon(client, slow_server, "running")


def test_a_call_cancelled_in_the_queue_never_runs(slow_server):
    with Client(slow_server.address) as client, Client(slow_server.address) as other:
        started = threading.Event()

        def hold():
            with pytest.raises((Cancelled, EssError, ValueError)):
                other.profile("slow", **SLOW, progress=lambda _: started.set())

        thread = threading.Thread(target=hold)
        thread.start()
        assert started.wait(60)
        tokens = slow_server.metric("ess_tokens_total", model="slow")
        with pytest.raises(DeadlineExceeded):
            client.profile("slow", token_ids=[[1, 2] * 150], timeout=0.3)  # Not a small one.
        other.close()
        thread.join(30)
        assert_free_soon(client, slow_server, "queued")
        # Only the small profile of assert_free_soon has run since.
        assert slow_server.metric("ess_tokens_total", model="slow") == tokens + 3


def test_a_full_queue_refuses_at_once(tmp_path):
    tiny_models.make_large_llama(tmp_path / "slow")
    config = tmp_path / "server.textproto"
    config.write_text("max_queued_profiles: 1")
    flags = (f"--config={config}", f"--model_root={tmp_path}", "--preload=slow")
    with ServerProcess(*flags) as server, Client(server.address, retries=0) as client:
        started = threading.Event()

        def hold(event):
            with Client(server.address) as mine, pytest.raises(DeadlineExceeded):
                mine.profile("slow", **SLOW, timeout=4, progress=lambda _: event and event.set())

        threads = [threading.Thread(target=hold, args=(started,))]
        threads[0].start()
        assert started.wait(60)
        threads.append(threading.Thread(target=hold, args=(None,)))
        threads[1].start()
        wait_for(lambda: server.metric("ess_queue_requests", model="slow", priority="normal") == 1)

        with pytest.raises(ResourceExhausted, match="max_queued_profiles"):
            client.profile("slow", token_ids=[[1]])

        wait_for(
            lambda: (
                server.metric("ess_requests_shed_total", model="slow", reason="queue_requests") == 1
            )
        )
        for thread in threads:
            thread.join()


def test_a_slow_reader_holds_back_the_work_and_not_the_memory(slow_server):
    """The server keeps at most some messages for a reader that pauses; the rest waits undone."""
    with grpc.insecure_channel(slow_server.address) as channel:
        request = profiler_pb2.ProfileRequest(
            model="slow",
            prompts=[
                profiler_pb2.Prompt(id=str(i), token_ids=profiler_pb2.TokenIds(ids=[5] * 400))
                for i in range(16)
            ],
            measures=[measures_pb2.Measure(tolerance=10.0**-k) for k in range(1, 6)],
        )
        before = slow_server.metric("ess_stream_stalled_seconds_total", rpc="Profile")
        call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(request, timeout=300)
        next(call)
        sent = -1.0
        while True:  # Until the server sends no more: it has stalled, or all is sent.
            time.sleep(1)
            now = slow_server.metric("ess_grpc_sent_bytes_total", rpc="Profile")
            if now == sent:
                break
            sent = now
        total = sum(message.ByteSize() for message in call)
    stalled = slow_server.metric("ess_stream_stalled_seconds_total", rpc="Profile") - before
    assert total > 30e6
    assert stalled > 0.5
