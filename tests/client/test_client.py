"""Calls over a real gRPC connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from replay_server import ReplayServer
from synthetic import make_profile, messages_of, reduced
from test_storage import assert_same

import ess_client
from ess_client import Client, Profile, Progress
from ess_client._requests import options_message


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_streamed_profile_has_the_servers_values(
    client: Client, server: ReplayServer, ragged: Profile, piece: int
) -> None:
    server.responses = list(messages_of(ragged, piece))

    profile = client.profile("tiny", prompts=["a", "b", "c"])

    assert_same(profile, ragged)
    assert profile.stages == {"forward": 0.25, "ess": 1.5}
    assert profile.peak_host_bytes == 1 << 20


def test_slices_may_come_in_any_order(
    client: Client, server: ReplayServer, ragged: Profile
) -> None:
    responses = list(messages_of(ragged))
    blocks = [i for i, r in enumerate(responses) if r.WhichOneof("message") == "ess"]
    for index, other in zip(blocks, reversed(blocks), strict=True):
        if index < other:
            responses[index], responses[other] = responses[other], responses[index]
    for index in blocks:
        slices = list(responses[index].ess.slices)
        del responses[index].ess.slices[:]
        responses[index].ess.slices.extend(reversed(slices))
    server.responses = responses

    assert_same(client.profile("tiny", prompts=["a", "b", "c"]), ragged)


def test_selected_heads_and_positions_and_singular_values_are_decoded(
    client: Client, server: ReplayServer
) -> None:
    sent = make_profile(
        (9, 3), ((0, 2), (1, 2)), ("singular_values:4", "entropy"), positions=(1, 2, 4, 6)
    )
    server.responses = list(messages_of(sent))

    profile = client.profile("tiny", prompts=["a", "b"], heads="0-2", positions="1-2,4-6:2")

    assert_same(profile, sent)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("reduce", [None, "heads", "positions"])
@pytest.mark.parametrize("certify", [False, True])
def test_options_change_what_is_decoded(
    client: Client, server: ReplayServer, piece: int, reduce: Any, certify: bool
) -> None:
    sent = make_profile(
        (9, 1, 3), ((0, 2), (0, 1, 2)), ("singular_values:4", "entropy"), certify=certify
    )
    sent = sent if reduce is None else reduced(sent, reduce)
    server.responses = list(messages_of(sent, piece))

    profile = client.profile(
        "tiny", prompts=["a", "b", "c"], certify=certify, reduce=reduce, horizon=5
    )

    assert_same(profile, sent)
    assert profile.reduction == reduce
    assert server.requests[0].options == options_message(5, certify, reduce)


def test_a_certified_answer_without_its_flags_is_an_internal_error(
    client: Client, server: ReplayServer
) -> None:
    responses = list(messages_of(make_profile(certify=True)))
    next(r for r in responses if r.WhichOneof("message") == "ess").ess.slices[0].certain = b""
    server.responses = responses

    with pytest.raises(ess_client.Internal, match="0 flags for 7 values"):
        client.profile("tiny", prompts=["a", "b"], certify=True)


def test_an_estimate_says_what_a_profile_would_cost(client: Client, server: ReplayServer) -> None:
    estimate = client.estimate("tiny", prompts=["a"], measures="tolerance:1e-3", reduce="heads")

    assert server.requests[0].options == options_message(None, False, "heads")
    assert (estimate.seconds, estimate.stages) == (2.5, {"forward": 1.0, "ess": 1.5})
    assert estimate.routes == {"DenseOperator": {"tolerance:0.001": "inertia_tree"}}
    assert (estimate.peak_bytes, estimate.response_bytes, estimate.tokens) == (96 << 20, 3 << 20, 7)
    assert "7 tokens: about 2.5 s (forward 1 s, ess 1.5 s)" in str(estimate)


def test_an_empty_selection_in_the_header_stands_for_what_was_asked(
    client: Client, server: ReplayServer
) -> None:
    sent = make_profile((9, 3), ((0, 2),), positions=(1, 2, 4, 6))
    responses = list(messages_of(sent))
    del responses[0].header.heads[:]
    responses[0].header.positions.Clear()
    server.responses = responses

    profile = client.profile("tiny", prompts=["a", "b"], heads=[0, 2], positions=[1, 2, 4, 6])

    assert_same(profile, sent)


def test_the_request_carries_what_was_asked(client: Client, server: ReplayServer) -> None:
    server.responses = list(messages_of(make_profile()))

    client.profile(
        "tiny",
        prompts=["text", {"id": "mine", "token_ids": np.array([1, 2])}],
        measures=["tolerance:1e-3", "entropy"],
        layers="0,002.attention",
        heads=1,
        positions="0-8:4",
        horizon=64,
        add_special_tokens=False,
    )

    request = server.requests[0]
    assert request.model == "tiny"
    assert request.prompts[0].text == "text"
    assert (request.prompts[1].id, list(request.prompts[1].token_ids.ids)) == ("mine", [1, 2])
    assert [m.WhichOneof("kind") for m in request.measures] == ["tolerance", "entropy"]
    assert list(request.layers.names) == ["002.attention"]
    assert (request.layers.ranges[0].first, request.heads.ranges[0].last) == (0, 1)
    assert request.positions.ranges[0].stride == 4
    assert request.options.horizon == 64
    assert request.HasField("add_special_tokens")
    assert not request.add_special_tokens


def test_token_ids_and_gaussian_inputs_replace_prompts(
    client: Client, server: ReplayServer
) -> None:
    server.responses = list(messages_of(make_profile()))

    client.profile("tiny", token_ids=[[1, 2, 3], [4]])
    client.profile("tiny", gaussian={"count": 8, "length": 512, "seed": 0})

    assert [list(p.token_ids.ids) for p in server.requests[0].prompts] == [[1, 2, 3], [4]]
    assert (server.requests[1].gaussian.count, server.requests[1].gaussian.length) == (8, 512)


def test_a_profile_remembers_random_weights_and_gaussian_inputs(
    client: Client, server: ReplayServer, tmp_path: Path
) -> None:
    server.responses = list(messages_of(make_profile()))
    server.responses[0].header.model.options.random_init.seed = 11

    client.profile("tiny", gaussian={"count": 3, "length": 9, "seed": 5}).save(tmp_path / "p")

    saved = ess_client.load_profile(tmp_path / "p")
    assert saved.model["random_init"] == "11"
    assert saved.options["gaussian"] == {"count": 3, "length": 9, "seed": 5}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "give one of prompts, token_ids and gaussian; found none"),
        ({"prompts": ["a"], "token_ids": [[1]]}, "found prompts and token_ids"),
        ({"prompts": [{"id": "x"}]}, "prompt x needs text or token_ids"),
        ({"prompts": ["a", {"text": "a", "token_ids": [1]}]}, "prompt 1 needs text or token_ids"),
        ({"prompts": [{"txt": "a"}]}, "a field 'txt'"),
        ({"prompts": [{"text": 3}]}, "prompt 0: text is no string but int"),
        ({"prompts": ["\ud800"]}, "prompt 0: text is not valid Unicode"),
        ({"token_ids": [[1.5]]}, "prompt 0: token_ids is 1.5, not an integer"),
        ({"token_ids": [[2**63]]}, "lies between"),
        ({"gaussian": {"count": 0, "length": 4}}, "gaussian count is 0"),
        ({"prompts": ["a"], "measures": ["rank"]}, "unknown measure 'rank'"),
        ({"prompts": ["a"], "heads": "x"}, "heads 'x'"),
        ({"prompts": ["a"], "horizon": 0}, "horizon is 0"),
        ({"prompts": ["a"], "reduce": "layers"}, "reduce='layers'"),
        ({"prompts": ["a"], "timeout": 0}, "timeout is 0"),
        ({"prompts": ["a" * (1 << 20)]}, "the limit is 1048576"),
    ],
)
def test_a_wrong_request_is_refused_before_the_call(
    client: Client, server: ReplayServer, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ess_client.InvalidArgument, match=reason):
        client.profile("tiny", **arguments)

    assert server.requests == []


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_status_code_has_its_exception(
    client: Client, server: ReplayServer, code: grpc.StatusCode
) -> None:
    server.failure = (code, "tokens is 9000; the limit is 8192")

    with pytest.raises(ess_client.EssError) as caught:
        client.server_info()

    assert type(caught.value).__name__ == code.name.replace("_", " ").title().replace(" ", "")
    assert caught.value.code is code
    assert caught.value.message.startswith("tokens is 9000; the limit is 8192")


def test_a_server_that_is_not_there_is_unavailable_with_its_address() -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(ess_client.Unavailable, match=r"no server answers at 127\.0\.0\.1:1"),
    ):
        client.models()


def drop_slice(responses: list[Any]) -> list[Any]:
    last = next(r for r in reversed(responses) if r.WhichOneof("message") == "ess")
    del last.ess.slices[-1]
    return responses


def repeat_slice(responses: list[Any]) -> list[Any]:
    first = next(r for r in responses if r.WhichOneof("message") == "ess")
    first.ess.slices.append(first.ess.slices[0])
    return responses


def wrong_shape(responses: list[Any]) -> list[Any]:
    first = next(r for r in responses if r.WhichOneof("message") == "ess")
    first.ess.slices[0].shape[0] += 1
    return responses


def negative_layer(responses: list[Any]) -> list[Any]:
    first = next(r for r in responses if r.WhichOneof("message") == "ess")
    first.ess.slices[0].layer = -1
    return responses


@pytest.mark.parametrize(
    "damage",
    [
        drop_slice,
        repeat_slice,
        wrong_shape,
        negative_layer,
        lambda responses: responses[:-1],
        lambda responses: responses[1:],
        lambda responses: [responses[0], *responses],
        lambda responses: [responses[0], *responses[2:]],
        lambda responses: [],
    ],
    ids=[
        "slice missing",
        "slice repeated",
        "wrong shape",
        "layer -1",
        "no last summary",
        "no header",
        "two headers",
        "tokens missing",
        "nothing",
    ],
)
def test_a_broken_answer_is_an_internal_error_and_never_a_wrong_number(
    client: Client,
    server: ReplayServer,
    ragged: Profile,
    damage: Callable[[list[Any]], list[Any]],
) -> None:
    server.responses = damage(list(messages_of(ragged)))

    with pytest.raises(ess_client.Internal):
        client.profile("tiny", prompts=["a", "b", "c"])


def test_threads_share_a_client(client: Client, server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))

    with futures.ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(client.profile, "tiny", ["a", "b", "c"]) for _ in range(48)]

    for call in calls:
        assert_same(call.result(), ragged)


def test_progress_counts_operators_times_prompts(
    client: Client, server: ReplayServer, ragged: Profile
) -> None:
    server.responses = list(messages_of(ragged))
    seen: list[Progress] = []

    client.profile("tiny", prompts=["a", "b", "c"], progress=seen.append)

    assert [p.done for p in seen] == list(range(10))
    assert {p.total for p in seen} == {9}
    assert [p.layer for p in seen] == ["", *["000"] * 3, *["001"] * 3, *["002"] * 3]


def test_an_exception_in_the_callback_cancels_the_call(
    client: Client, server: ReplayServer, ragged: Profile
) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()

    def stop(progress: Progress) -> None:
        raise RuntimeError("enough")

    try:
        threading.Timer(0.2, server.hold.set).start()
        with pytest.raises(RuntimeError, match="enough"):
            client.profile("tiny", prompts=["a", "b", "c"], progress=stop)
        assert server.ended.wait(5)
    finally:
        server.hold.set()


def test_the_calls_timeout_wins_over_the_clients(server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()
    began = time.monotonic()

    try:
        with Client(server.address, timeout=60) as client, pytest.raises(TimeoutError):
            client.profile("tiny", prompts=["a"], timeout=0.2)
    finally:
        server.hold.set()

    assert time.monotonic() - began < 5


def test_models_are_listed_described_loaded_and_unloaded(
    client: Client, server: ReplayServer
) -> None:
    assert [(m.name, m.state) for m in client.models()] == [("tiny", "ready")]
    layer = client.model("tiny").layers[0]
    assert layer.channels == (64, 64, 64)
    assert layer.state_size.at(np.array([0, 3, 99])).tolist() == [0, 3, 7]
    assert client.load_model("tiny", random_init=3, alias="other").name == "other"
    assert server.requests[-1].options.random_init.seed == 3
    assert client.load_model("tiny", random_init=0).random_init == 0
    assert client.load_model("tiny").random_init is None
    assert client.unload_model("tiny") == 3 << 20
    assert client.server_info().architectures == ("gpt2", "llama")


def test_an_unknown_dtype_is_refused(client: Client) -> None:
    with pytest.raises(ess_client.InvalidArgument, match="float32 or as_stored"):
        client.load_model("tiny", dtype="float16")
