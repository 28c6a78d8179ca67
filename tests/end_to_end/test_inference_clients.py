"""tritonclient, the public client of the Open Inference Protocol, against our server."""

import asyncio
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from ess_client import Client

from . import tiny_models
from .inference import assert_same_bits
from .server_process import ServerProcess, wait_for

TOKENS = np.array([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]], dtype=np.int64)
LENGTHS = np.array([6, 3], dtype=np.int32)
MEASURES = "tolerance:1e-3,entropy,relative:0.01"
PROFILE = {
    "token_ids": [[5, 6, 7, 8, 9, 10], [11, 12, 13]],
    "measures": MEASURES.split(","),
}


def token_inputs(tokens=TOKENS, lengths=LENGTHS):
    inputs = [triton.InferInput("TOKENS", tokens.shape, "INT64")]
    inputs[0].set_data_from_numpy(tokens)
    if lengths is not None:
        inputs.append(triton.InferInput("LENGTHS", lengths.shape, "INT32"))
        inputs[1].set_data_from_numpy(lengths)
    return inputs


@pytest.fixture
def peer(server):
    with triton.InferenceServerClient(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("slow")
    tiny_models.make_large_llama(root / "slow")
    with ServerProcess(f"--model_root={root}", "--preload=slow") as process:
        yield process


def slow_inputs():
    return token_inputs(np.full((8, 900), 5, dtype=np.int64), lengths=None)


def test_the_client_sees_a_live_and_ready_server(peer):
    assert peer.is_server_live()
    assert peer.is_server_ready()
    assert peer.is_model_ready("tiny-llama")
    assert peer.is_model_ready("tiny-llama", "1")
    assert not peer.is_model_ready("tiny-llama", "2")
    assert not peer.is_model_ready("nobody")
    assert peer.get_server_metadata().name == "ess_profiler"
    assert [entry.name for entry in peer.get_model_metadata("tiny-llama").inputs][0] == "TOKENS"
    assert peer.get_model_config("tiny-llama").config.max_batch_size == 256
    assert {model.name for model in peer.get_model_repository_index().models} >= {"tiny-llama"}


def test_sync_infer_gives_the_bits_of_profile(peer, client):
    result = peer.infer(
        "tiny-llama", token_inputs(), request_id="mine", parameters={"measures": MEASURES}
    )

    profile = client.profile("tiny-llama", **PROFILE)
    expected = profile.ess.transpose("prompt", "measure", "layer", "head", "position").values
    assert_same_bits(result.as_numpy("ESS"), expected)
    assert result.get_response().id == "mine"
    assert result.get_response().model_version == "1"
    assert [name.decode() for name in result.as_numpy("LAYER")] == ["000", "001", "002"]
    assert [name.decode() for name in result.as_numpy("MEASURE")] == [
        "tolerance:0.001",
        "entropy",
        "relative:0.01",
    ]
    assert result.as_numpy("TOKENS_USED").tolist() == [6, 3]
    assert result.as_numpy("POSITION_INDEX").tolist() == list(range(6))
    assert np.isnan(result.as_numpy("ESS")[1, :, :, :, 3:]).all()
    assert not np.isnan(result.as_numpy("ESS")[1, :, :, :, :3]).any()


def test_texts_give_the_bits_of_profile(peer, client):
    texts = ["the quick brown fox", "jumps"]
    data = triton.InferInput("TEXT", [2], "BYTES")
    data.set_data_from_numpy(np.array(texts, dtype=np.object_))

    result = peer.infer("tiny-llama", [data], outputs=[triton.InferRequestedOutput("ESS")])

    expected = client.profile("tiny-llama", prompts=texts).ess
    expected = expected.transpose("prompt", "measure", "layer", "head", "position").values
    assert_same_bits(result.as_numpy("ESS"), expected)
    assert result.as_numpy("LAYER") is None  # It was not asked for.


def test_selections_explain_themselves(peer, client):
    parameters = {"layers": "0,2", "heads": "1-3:2", "positions": "1-5:2", "certify": True}
    result = peer.infer("tiny-llama", token_inputs(), parameters=parameters)

    profile = client.profile(
        "tiny-llama",
        token_ids=PROFILE["token_ids"],
        layers="0,2",
        heads="1-3:2",
        positions="1-5:2",
        certify=True,
    )
    expected = profile.ess.transpose("prompt", "measure", "layer", "head", "position").values
    assert_same_bits(result.as_numpy("ESS"), expected)
    assert result.as_numpy("LAYER_INDEX").tolist() == [0, 2]
    assert result.as_numpy("HEAD_INDEX").tolist() == [1, 3]
    assert result.as_numpy("POSITION_INDEX").tolist() == [1, 3, 5]
    certain = result.as_numpy("CERTAIN")
    assert certain.dtype == np.bool_
    assert not certain[np.isnan(expected)].any()


def test_async_infer_answers_its_callback(peer):
    answers = queue.Queue()
    for number in range(8):
        peer.async_infer(
            "tiny-llama",
            token_inputs(),
            callback=lambda result, error: answers.put((result, error)),
            request_id=str(number),
        )
    found = [answers.get(timeout=60) for _ in range(8)]
    assert all(error is None for _, error in found)
    assert {result.get_response().id for result, _ in found} == {str(n) for n in range(8)}


def test_the_asyncio_client_works(server):
    async def run():
        async with triton_aio.InferenceServerClient(server.address) as peer:
            assert await peer.is_server_ready()
            result = await peer.infer("tiny-llama", token_inputs())

            async def requests():
                for number in range(3):
                    yield {
                        "model_name": "tiny-llama",
                        "inputs": token_inputs(),
                        "request_id": str(number),
                    }

            streamed = []
            async for answer, error in peer.stream_infer(requests()):
                assert error is None
                streamed.append(answer.get_response())
            return result.as_numpy("ESS"), streamed

    ess, streamed = asyncio.run(run())
    assert ess.shape == (2, 2, 3, 4, 6)
    assert len(streamed) == 9  # Three requests, three layers each.


def test_a_stream_gives_the_layers_one_by_one(peer, client):
    answers = queue.Queue()
    peer.start_stream(callback=lambda result, error: answers.put((result, error)))
    peer.async_stream_infer(
        "tiny-llama",
        token_inputs(),
        request_id="streamed",
        parameters={"measures": MEASURES},
        enable_empty_final_response=True,
    )
    results = [answers.get(timeout=60) for _ in range(3)]
    peer.stop_stream()

    assert all(error is None for _, error in results)
    responses = [result.get_response() for result, _ in results]
    finals = [response.parameters["triton_final_response"].bool_param for response in responses]
    assert finals == [False, False, True]
    assert {response.id for response in responses} == {"streamed"}
    layers = [result.as_numpy("LAYER")[0].decode() for result, _ in results]
    assert layers == ["000", "001", "002"]
    whole = np.concatenate([result.as_numpy("ESS") for result, _ in results], axis=2)
    profile = client.profile("tiny-llama", **PROFILE)
    expected = profile.ess.transpose("prompt", "measure", "layer", "head", "position").values
    assert_same_bits(whole, expected)
    assert answers.empty()


def test_an_error_of_a_stream_is_a_message_and_the_stream_goes_on(peer):
    answers = queue.Queue()
    peer.start_stream(callback=lambda result, error: answers.put((result, error)))
    bad = np.array([[1_000_000]], dtype=np.int64)
    peer.async_stream_infer("tiny-llama", token_inputs(bad, None), request_id="bad")
    _, error = answers.get(timeout=60)
    assert error.message().startswith("[INVALID_ARGUMENT] TOKENS: token id 1000000")
    peer.async_stream_infer("tiny-llama", token_inputs(), request_id="good")
    results = [answers.get(timeout=60) for _ in range(3)]
    peer.stop_stream()
    assert all(error is None for _, error in results)


def test_with_the_header_an_error_ends_the_stream_with_its_status(peer):
    answers = queue.Queue()
    peer.start_stream(
        callback=lambda result, error: answers.put((result, error)),
        headers={"triton_grpc_error": "true"},
    )
    bad = np.array([[1_000_000]], dtype=np.int64)
    peer.async_stream_infer("tiny-llama", token_inputs(bad, None))
    _, error = answers.get(timeout=60)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "1000000" in error.message()
    peer.stop_stream()


def test_an_error_carries_its_code(peer):
    with pytest.raises(InferenceServerException, match="there is no model 'nobody'") as error:
        peer.infer("nobody", token_inputs())
    assert error.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="did you mean 'layers'") as error:
        peer.infer("tiny-llama", token_inputs(), parameters={"layer": "1"})
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException) as error:
        peer.get_system_shared_memory_status()
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"


def test_client_timeout_stops_the_work(slow_server):
    with triton.InferenceServerClient(slow_server.address) as peer:
        start = time.monotonic()
        with pytest.raises(InferenceServerException) as error:
            peer.infer("slow", slow_inputs(), client_timeout=0.3)
        assert time.monotonic() - start < 2
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    wait_for(
        lambda: slow_server.metric("ess_requests_in_flight", model="slow", rpc="ModelInfer") == 0
    )
    counted = slow_server.metric(
        "ess_requests_total", model="slow", rpc="ModelInfer", code="DEADLINE_EXCEEDED"
    )
    assert counted == 1


def test_cancel_stops_the_work(slow_server):
    answers = queue.Queue()
    with triton.InferenceServerClient(slow_server.address) as peer:
        context = peer.async_infer(
            "slow", slow_inputs(), callback=lambda result, error: answers.put(error)
        )
        wait_for(
            lambda: (
                slow_server.metric("ess_requests_in_flight", model="slow", rpc="ModelInfer") == 1
            )
        )
        context.cancel()
        assert answers.get(timeout=30).status() == "StatusCode.CANCELLED"
        wait_for(
            lambda: (
                slow_server.metric("ess_requests_in_flight", model="slow", rpc="ModelInfer") == 0
            )
        )
    assert (
        slow_server.metric("ess_requests_total", model="slow", rpc="ModelInfer", code="CANCELLED")
        == 1
    )


def test_a_cancelled_stream_stops_all_its_requests(slow_server):
    with triton.InferenceServerClient(slow_server.address) as peer:
        peer.start_stream(callback=lambda result, error: None)
        for _ in range(3):
            peer.async_stream_infer("slow", slow_inputs())
        in_flight = {"model": "slow", "rpc": "ModelStreamInfer"}
        wait_for(lambda: slow_server.metric("ess_requests_in_flight", **in_flight) == 3)
        peer.stop_stream(cancel_requests=True)
        wait_for(lambda: slow_server.metric("ess_requests_in_flight", **in_flight) == 0)
    slow_server.wait_until_idle()
    cancelled = {**in_flight, "code": "CANCELLED"}
    assert slow_server.metric("ess_requests_total", **cancelled) == 3


def test_a_request_that_waits_longer_than_its_timeout_is_refused(slow_server):
    with triton.InferenceServerClient(slow_server.address) as peer:
        context = peer.async_infer("slow", slow_inputs(), callback=lambda result, error: None)
        wait_for(
            lambda: (
                slow_server.metric("ess_requests_in_flight", model="slow", rpc="ModelInfer") == 1
            )
        )
        start = time.monotonic()
        with pytest.raises(InferenceServerException, match="200000 us in the queue") as error:
            peer.infer("slow", slow_inputs(), timeout=200_000, priority=2)
        assert time.monotonic() - start < 2
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        context.cancel()


def test_both_clients_live_in_one_process(server):
    with (
        triton.InferenceServerClient(server.address) as peer,
        Client(server.address, timeout=60) as client,
    ):
        assert peer.is_server_live()
        assert client.server_info().version == peer.get_server_metadata().version
