"""Requests that no honest client sends: each gets its code, and the server goes on as before.

What a client can send by mistake is in tests/end_to_end/test_bad_input.py, and what is wrong with a
stream of operators in test_operator_streams.py beside it.
"""

import contextlib

import grpc
import pytest

from ess_client._proto.ess.v1 import (
    measures_pb2,
    models_pb2,
    operators_pb2,
    profiler_pb2,
)

from .good_calls import SERVICE, digest, profile_requests

LARGE = (1 << 63) - 1


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as connected:
        yield connected


def answer(channel, method, *messages):
    """(code, details, answers) of a call with messages, or with their bytes."""
    encoded = [
        message if isinstance(message, bytes) else message.SerializeToString()
        for message in messages
    ]
    call = channel.stream_stream(SERVICE + method)(iter(encoded), timeout=60)
    answers = []
    with contextlib.suppress(grpc.RpcError):
        answers.extend(call)
    return call.code().name, call.details(), answers


@pytest.fixture(autouse=True)
def unharmed(channel):
    """The same good request has the same answer before and after each test."""

    def good():
        code, details, answers = answer(channel, "Profile", profile_requests()[0])
        assert code == "OK", details
        return digest([profiler_pb2.ProfileResponse.FromString(part) for part in answers])

    before = good()
    yield
    assert good() == before


def profile(**changes):
    request = profiler_pb2.ProfileRequest(
        model="tiny-llama", prompts=[profiler_pb2.Prompt(token_ids={"ids": [1, 2, 3]})]
    )
    request.MergeFrom(profiler_pb2.ProfileRequest(**changes))
    return request


def gaussian(**fields):
    return profiler_pb2.ProfileRequest(model="tiny-llama", gaussian=fields)


def selection(*ranges):
    return {
        "ranges": [
            {"first": first, "last": last, "stride": stride} for first, last, stride in ranges
        ]
    }


# What is asked of Profile and EstimateProfile -> parts of the message.
PROFILES = {
    "10,000 prompts": (profile(prompts=[profiler_pb2.Prompt(text="x")] * 10_000), ["10001", "32"]),
    "a prompt that is both absent and named": (
        profile(prompts=[profiler_pb2.Prompt(id="a")]),
        ["neither text nor token_ids"],
    ),
    "the largest token id": (
        profile(prompts=[profiler_pb2.Prompt(token_ids={"ids": [LARGE]})]),
        [f"token id {LARGE}", "vocabulary"],
    ),
    "the smallest token id": (
        profile(prompts=[profiler_pb2.Prompt(token_ids={"ids": [-LARGE - 1]})]),
        ["token id -9223372036854775808"],
    ),
    "an ordinal that is another prompt's name": (
        profile(prompts=[profiler_pb2.Prompt(id="0", text="x")]),
        ["prompts[1].id: '0'"],
    ),
    "a negative number of gaussian prompts": (gaussian(count=-1, length=4), ["gaussian.count: -1"]),
    "gaussian prompts without end": (
        gaussian(count=1, length=LARGE),
        [f"{LARGE} ", "the limit is"],
    ),
    "as many gaussian prompts as can be said": (
        gaussian(count=(1 << 31) - 1, length=LARGE),
        ["2147483647", "max_prompts"],
    ),
    "a range to the largest index": (
        profile(positions=selection((0, LARGE, 1))),
        ["positions: index 9223372036854775807"],
    ),
    "a stride that overflows the sum": (
        profile(positions=selection((1, LARGE, LARGE - 1))),
        ["positions: index 9223372036854775807"],
    ),
    "a range that runs backwards": (profile(heads=selection((2, 1, 1))), ["heads: the range"]),
    "a negative stride": (profile(heads=selection((0, 1, -1))), ["stride=-1"]),
    "more ranges than the limit": (
        profile(positions=selection(*[(0, 0, 1)] * 16_385)),
        ["16385 ranges", "16384"],
    ),
    "10,000 measures": (
        profile(measures=[measures_pb2.Measure(entropy={})] * 10_000),
        ["10000 measures", "64"],
    ),
    "a measure twice": (
        profile(measures=[measures_pb2.Measure(entropy={})] * 2),
        ["measures[1]: 'entropy' is there twice"],
    ),
    "more singular values than there can be": (
        profile(measures=[measures_pb2.Measure(singular_values=(1 << 31) - 1)]),
        ["measures[0]"],
    ),
    "a reduction of the future": (
        profile(options=measures_pb2.MeasureOptions(reduction=99)),
        ["options.reduction: 99"],
    ),
    "the smallest horizon": (
        profile(options=measures_pb2.MeasureOptions(horizon=-LARGE - 1)),
        ["options.horizon: -9223372036854775808"],
    ),
    "10,000 names of layers": (
        profile(layers={"names": [str(number) for number in range(10_000)]}),
        ["no mixing operator '0'"],
    ),
}


@pytest.mark.parametrize("method", ["Profile", "EstimateProfile"])
@pytest.mark.parametrize("case", PROFILES)
def test_an_absurd_profile_is_an_invalid_argument(channel, method, case):
    request, parts = PROFILES[case]

    code, details, _ = answer(channel, method, request)

    assert code == "INVALID_ARGUMENT", details
    for part in parts:
        assert part in details


def test_a_model_of_a_very_long_name_is_not_found_in_few_words(channel):
    code, details, _ = answer(channel, "Profile", profile(model="é" * 100_000))
    assert code == "NOT_FOUND"
    assert len(details) < 500


@pytest.mark.parametrize(
    "device", ["abacus", "", "\0", "x" * 100_000, "cpu:99999999999", "cuda:-1", "cuda:128"]
)
def test_a_load_onto_an_absurd_device_is_refused_and_the_model_still_serves(channel, device):
    request = models_pb2.LoadModelRequest(
        name="tiny-falcon-h1", options={"device": device or "\n", "alias": "elsewhere"}
    )

    code, details, _ = answer(channel, "LoadModel", request)

    assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), details
    assert "device" in details
    assert answer(channel, "GetModel", models_pb2.GetModelRequest(name="elsewhere"))[0] == (
        "NOT_FOUND"
    )
    assert answer(channel, "Profile", profile_requests()[1])[0] == "OK"


@pytest.mark.parametrize("name", ["../tiny-llama", "/etc", "..", ".", "tiny-llama/../tiny-llama"])
def test_a_path_is_no_model(channel, name):
    for method, request in {
        "LoadModel": models_pb2.LoadModelRequest(name=name),
        "GetModel": models_pb2.GetModelRequest(name=name),
        "UnloadModel": models_pb2.UnloadModelRequest(name=name),
    }.items():
        assert answer(channel, method, request)[0] == "NOT_FOUND"


def test_an_alias_that_is_a_path_is_refused(channel):
    request = models_pb2.LoadModelRequest(name="tiny-llama", options={"alias": "../x"})
    code, details, _ = answer(channel, "LoadModel", request)
    assert code == "INVALID_ARGUMENT"
    assert "options.alias" in details


# Bytes that are no request, to a method with one request.
NO_MESSAGES = {
    "a truncated field": b"\x0a\xff",
    "a varint of eleven bytes": b"\xff" * 11,
    "a length beyond the message": b"\x12\xff\xff\xff\xff\x0f",
    "text that is not UTF-8": b"\x0a\x02\xc3\x28",
    "groups without end": b"\x0b" * 10_000,
}


@pytest.mark.parametrize("case", NO_MESSAGES)
def test_bytes_that_are_no_message_never_reach_a_handler(channel, case):
    code, details, _ = answer(channel, "EstimateProfile", NO_MESSAGES[case])
    assert (code, details) == ("UNIMPLEMENTED", "")  # gRPC C++'s own answer.


@pytest.mark.parametrize("messages", [[], *([bytes] for bytes in NO_MESSAGES.values())])
def test_bytes_that_are_no_message_are_named_by_profile(channel, messages):
    code, details, _ = answer(channel, "Profile", *messages)
    assert (code, details) == (
        "INVALID_ARGUMENT",
        "request: its bytes are no ess.v1.ProfileRequest",
    )


@pytest.mark.parametrize("case", NO_MESSAGES)
def test_bytes_that_are_no_message_end_a_stream_of_operators(channel, case):
    code, details, _ = answer(channel, "ProfileOperators", NO_MESSAGES[case])
    assert code == "INVALID_ARGUMENT"
    assert "the stream ended without one" in details


def test_a_message_above_grpcs_limit_is_resource_exhausted(channel):
    code, details, _ = answer(channel, "GetModel", b"\x0a" + b"x" * (5 << 20))
    assert code == "RESOURCE_EXHAUSTED"
    assert "4194304" in details


def declaration(*shape):
    argument = operators_pb2.OperatorArgument(
        name="T", dtype=operators_pb2.OPERATOR_DTYPE_FLOAT32, shape=shape
    )
    return operators_pb2.ProfileOperatorsRequest(
        declaration=operators_pb2.OperatorDeclaration(
            operator_class=operators_pb2.OPERATOR_CLASS_DENSE, arguments=[argument]
        )
    )


def piece(values, **fields):
    return operators_pb2.ProfileOperatorsRequest(
        data=operators_pb2.OperatorData(values=values, **fields)
    )


STREAMS = {
    "sizes whose product overflows": [declaration(1 << 32, 1 << 32, 4, 4)],
    "the largest size": [declaration(LARGE, LARGE)],
    "the smallest size": [declaration(-LARGE - 1, 2)],
    "10,000 dimensions": [declaration(*[1] * 10_000)],
    "10,000 arguments": [
        operators_pb2.ProfileOperatorsRequest(
            declaration=operators_pb2.OperatorDeclaration(
                operator_class=operators_pb2.OPERATOR_CLASS_DENSE,
                arguments=[operators_pb2.OperatorArgument(name="T", dtype=1, shape=[2, 2])]
                * 10_000,
            )
        )
    ],
    "a piece twice": [declaration(2, 2), piece(bytes(8)), piece(bytes(8))],
    "pieces in the wrong order": [
        declaration(2, 2),
        piece(bytes(8), first_element=2),
        piece(bytes(8)),
    ],
    "a piece before the first element": [declaration(2, 2), piece(bytes(16), first_element=-4)],
    "a piece at the largest element": [declaration(2, 2), piece(bytes(16), first_element=LARGE)],
    "a piece of argument -1": [declaration(2, 2), piece(bytes(16), argument=-1)],
    "half an element": [declaration(2, 2), piece(bytes(15))],
}


@pytest.mark.parametrize("case", STREAMS)
def test_an_absurd_stream_of_operators_is_an_invalid_argument(channel, case):
    code, details, answers = answer(channel, "ProfileOperators", *STREAMS[case])
    assert code == "INVALID_ARGUMENT", details
    assert not answers
    assert len(details) < 5000


def test_finite_factors_whose_product_is_infinite_are_an_invalid_argument(channel):
    argument = operators_pb2.OperatorArgument
    declared = operators_pb2.ProfileOperatorsRequest(
        declaration=operators_pb2.OperatorDeclaration(
            operator_class=operators_pb2.OPERATOR_CLASS_DIAGONAL_RECURRENCE,
            arguments=[
                argument(name=name, dtype=operators_pb2.OPERATOR_DTYPE_FLOAT64, shape=[4, 1])
                for name in "abc"
            ],
        )
    )
    largest = b"\xff\xff\xff\xff\xff\xff\xef\x7f" * 4

    code, details, _ = answer(
        channel,
        "ProfileOperators",
        declared,
        *(piece(largest, argument=ordinal) for ordinal in range(3)),
    )

    assert code == "INVALID_ARGUMENT", details
    assert "products of its factors must be finite" in details
