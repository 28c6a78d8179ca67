"""EstimateProfile: checked as Profile, close to what then happens, and nothing is run."""

import time

import grpc
import pytest

from ess_client import Client, EssError
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc

from . import tiny_models
from .server_process import ServerProcess
from .test_bad_input import CASES, GOOD, refused


@pytest.fixture(scope="module")
def large_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    tiny_models.make_large_llama(root / "large")
    with ServerProcess(f"--model_root={root}") as process:
        yield process


def test_an_estimate_describes_the_profile_and_runs_nothing(client, server):
    arguments = {"prompts": ["the lazy dog", "fox"], "measures": ["tolerance:1e-3", "entropy"]}
    profile = client.profile("tiny-llama", **arguments)
    tokens = server.metric("ess_tokens_total", model="tiny-llama")

    estimate = client.estimate("tiny-llama", **arguments)

    assert estimate.tokens == sum(prompt.length for prompt in profile.prompts)
    assert estimate.routes == {"DenseOperator": profile.routes["000"]}
    assert estimate.seconds == pytest.approx(sum(estimate.stages.values()))
    assert set(estimate.stages) == {"forward", "ess"}
    assert estimate.peak_bytes > 0
    assert server.metric("ess_tokens_total", model="tiny-llama") == tokens


def test_measures_default_to_the_servers(client):
    estimate = client.estimate("tiny-llama", token_ids=GOOD)

    assert tuple(estimate.routes["DenseOperator"]) == client.server_info().default_measures


@pytest.mark.parametrize("case", CASES)
def test_what_profile_refuses_is_refused(client, case):
    arguments, code, parts = CASES[case]
    model = arguments.get("model", "tiny-llama")
    rest = {name: value for name, value in arguments.items() if name != "model"}
    refused(lambda: client.estimate(model, **rest), code, *parts)


@pytest.mark.parametrize("reduction", [0, measures_pb2.REDUCTION_HEADS])
@pytest.mark.parametrize("certify", [False, True])
def test_the_bytes_of_the_answers_are_close(server, reduction, certify):
    request = profiler_pb2.ProfileRequest(
        model="tiny-llama",
        prompts=[
            profiler_pb2.Prompt(id=str(n), token_ids=profiler_pb2.TokenIds(ids=[1] * n))
            for n in (400, 30, 1)
        ],
        options=measures_pb2.MeasureOptions(reduction=reduction, certify=certify),
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = profiler_pb2_grpc.EssProfilerStub(channel)
        estimated = stub.EstimateProfile(request, timeout=60).response_bytes
        answered = sum(message.ByteSize() for message in stub.Profile(request, timeout=60))

    assert answered / 1.3 < estimated < answered * 1.3


def test_the_seconds_are_of_the_right_size(large_server):
    """Loose bounds: other work may slow this machine. docs/benchmarks.md compares closely."""
    arguments = {"token_ids": [[5] * 700] * 2, "measures": ["tolerance:1e-3", "tolerance:1e-1"]}
    with Client(large_server.address, timeout=120) as client:
        estimate = client.estimate("large", **arguments)
        assert client.model("large").state == "ready"  # Loaded, to look at its layers.
        began = time.monotonic()
        client.profile("large", **arguments)
        seconds = time.monotonic() - began

    assert seconds / 8 < estimate.seconds < seconds * 8


def test_longer_prompts_cost_more(client):
    def seconds(length):
        return client.estimate("tiny-llama", token_ids=[[1] * length]).seconds

    assert seconds(64) < seconds(128) < seconds(512)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(EssError, match="tiny-llama"):
        client.estimate("gpt-9", token_ids=GOOD)
