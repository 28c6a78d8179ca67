"""Operators a caller brings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from replay_server import ReplayServer, operator_answer

from ess_client import (
    BandedOperator,
    Client,
    Convolution,
    DeltaRecurrence,
    DenseOperator,
    DiagonalPlusRankOne,
    DiagonalRecurrence,
    GeneralRecurrence,
    Internal,
    InvalidArgument,
    Progress,
    Unimplemented,
)
from ess_client._requests import options_message

L, N = 6, 3


def array(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape)


def test_every_class_takes_its_documented_shapes() -> None:
    vectors = [array(2, L, N) for _ in range(5)]
    operators = [
        DenseOperator(np.tril(array(2, L, L))),
        DiagonalRecurrence(array(L, 1), array(2, L, N), array(4, 1, L, N), read="before"),
        DiagonalRecurrence(array(L, N) * 1j, array(L, N), array(L, N)),
        DeltaRecurrence(array(L), array(2, L), array(L, N), array(L, N)),
        DiagonalPlusRankOne(*vectors),
        GeneralRecurrence(array(L, N, N), array(L, N), array(L, N)),
        Convolution(array(L)),
        Convolution(array(2, L), gate_out=array(L), gate_in=array(L)),
        Convolution(array(2), gate_out=array(3, L)),
        Convolution(array(2), gate_in=array(L)),
        BandedOperator(array(L, 4), sinks=array(L, 2)),
    ]

    assert [operator.length for operator in operators] == [L] * len(operators)
    assert list(operators[1].arguments()) == ["a", "b", "c"]
    assert list(operators[6].arguments()) == ["h"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DenseOperator(array(L)), r"DenseOperator.T has shape \[6\]; it is \[..., L, L\]"),
        (lambda: DenseOperator(array(L, L + 1)), "L = 7, but T has 6"),
        (lambda: DenseOperator(array(0, 0)), "L is 0"),
        (lambda: DenseOperator(np.eye(L, dtype=np.int64)), "T is int64"),
        (lambda: DenseOperator(np.eye(L) * 1j), "T is complex128"),
        (lambda: DenseOperator(torch.eye(L).bfloat16()), "T is bfloat16"),
        (
            lambda: Convolution(array(9), gate_in=array(L)),
            "h has K = 9, but the gates have L = 6; a filter has at most L taps",
        ),
        (
            lambda: Convolution(array(2), gate_out=array(5), gate_in=array(L)),
            "gate_in has L = 6, but gate_out has 5",
        ),
        (lambda: DiagonalRecurrence(array(L, 2), array(L, N), array(L, N)), "a has N = 2"),
        (lambda: DiagonalRecurrence(array(L, 1), array(L, N), array(5, N)), "c has L = 5"),
        (
            lambda: DiagonalRecurrence(array(2, L, 1), array(3, L, N), array(L, N)),
            r"do not broadcast: a \[2\], b \[3\]",
        ),
        (
            lambda: DiagonalRecurrence(array(L, 1), array(L, N), array(L, N), read="later"),
            "read='later'",
        ),
    ],
)
def test_a_wrong_argument_is_refused_naming_it(make: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        make()


def test_arguments_are_sent_unexpanded_in_pieces_that_fit_a_message(
    client: Client, server: ReplayServer
) -> None:
    server.operator_responses = operator_answer([0.0] * 8, [2], 4)
    b = array(1000, 300)
    operator = DiagonalRecurrence(torch.ones(2, 1000, 1), b, b.astype(np.float32), read="before")

    client.profile_operators(operator, measures=["tolerance:1e-3"])

    declaration, *data = server.requests
    assert declaration.declaration.read_order == 2
    assert [list(a.shape) for a in declaration.declaration.arguments] == [
        [2, 1000, 1],
        [1000, 300],
        [1000, 300],
    ]
    assert [a.dtype for a in declaration.declaration.arguments] == [1, 2, 1]
    assert max(message.ByteSize() for message in server.requests) < 1 << 20
    sent = b"".join(m.data.values for m in data if m.data.argument == 1)
    np.testing.assert_array_equal(np.frombuffer(sent, "<f8").reshape(1000, 300), b)


def test_the_result_has_the_operators_leading_dimensions(
    client: Client, server: ReplayServer
) -> None:
    server.operator_responses = operator_answer([0, 1, 1, 1, 0, 1, 2, 1], [2], 4)

    result = client.profile_operators(DenseOperator(np.tril(array(2, 4, 4))), measures="entropy")

    assert result.ess.dims == ("measure", "batch_0", "position")
    assert result.ess.values.tolist() == [[[0, 1, 1, 1], [0, 1, 2, 1]]]
    assert result.tss.values.tolist() == [0, 1, 2, 3]
    assert result.noise_floor.values.tolist() == [0, 1e-6]
    assert result.route == {"tolerance:0.001": "inertia_tree"}
    assert result.below_noise_floor == {"tolerance:0.001": 1}
    assert result.certain is None


def test_an_operator_without_leading_dimensions_has_none_in_its_result(
    client: Client, server: ReplayServer
) -> None:
    server.operator_responses = operator_answer([0, 1, 1, 1], [], 4)

    result = client.profile_operators(DenseOperator(np.tril(array(4, 4))))

    assert result.ess.dims == ("measure", "position")
    assert result.noise_floor.shape == ()


def test_options_and_positions_reach_the_declaration(client: Client, server: ReplayServer) -> None:
    server.operator_responses = operator_answer([0.0] * 4, [], 4)

    client.profile_operators(
        DenseOperator(np.eye(4)), measures="entropy", positions="0-2:2", horizon=3
    )

    declaration = server.requests[0].declaration
    assert declaration.options == options_message(3, False, None)
    assert declaration.positions.ranges[0].stride == 2
    assert declaration.measures[0].WhichOneof("kind") == "entropy"


def test_certified_values_come_with_their_flags(client: Client, server: ReplayServer) -> None:
    server.operator_responses = operator_answer(
        [0, 1, 1, 1, 0, 1, 2, 1],
        [2],
        4,
        options_message(None, True, None),
        [1, 1, 0, 1, 1, 1, 1, 0],
    )

    result = client.profile_operators(DenseOperator(np.tril(array(2, 4, 4))), certify=True)

    assert result.certain is not None
    assert result.certain.dims == result.ess.dims
    assert result.certain.values.tolist() == [
        [[True, True, False, True], [True, True, True, False]]
    ]


@pytest.mark.parametrize(
    ("reduce", "values", "dims"),
    [
        ("heads", [0, 1, 1.5, 2], ("measure", "position")),
        ("positions", [1.5, 2.5], ("measure", "batch_0")),
    ],
)
def test_a_reduced_result_lacks_the_dimension(
    client: Client, server: ReplayServer, reduce: Any, values: list[float], dims: tuple[str, ...]
) -> None:
    server.operator_responses = operator_answer(
        values, [2], 4, options_message(None, False, reduce)
    )

    result = client.profile_operators(DenseOperator(np.tril(array(2, 4, 4))), reduce=reduce)

    assert result.ess.dims == dims
    assert result.ess.values.tolist() == [values]


def test_progress_counts_the_values(client: Client, server: ReplayServer) -> None:
    server.operator_responses = operator_answer([0.0] * 8, [2], 4)
    seen: list[Progress] = []

    client.profile_operators(DenseOperator(np.tril(array(2, 4, 4))), progress=seen.append)

    assert [(p.done, p.total) for p in seen] == [(0, 8), (4, 8), (8, 8)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda responses: responses[1:],
        lambda responses: [responses[0], *responses],
        lambda responses: [responses[0], *responses[2:]],
        lambda responses: [*responses[:2], responses[1], *responses[3:]],
        lambda responses: responses[:-1],
        lambda responses: [*responses, responses[1]],
        lambda responses: [],
    ],
    ids=[
        "no header",
        "two headers",
        "slice missing",
        "slice repeated",
        "no last summary",
        "slice after the end",
        "nothing",
    ],
)
def test_a_broken_answer_is_an_internal_error(
    client: Client, server: ReplayServer, damage: Any
) -> None:
    server.operator_responses = damage(operator_answer([0.0] * 12, [3], 4))

    with pytest.raises(Internal):
        client.profile_operators(DenseOperator(np.tril(array(3, 4, 4))))


def test_flags_that_are_missing_are_an_internal_error(client: Client, server: ReplayServer) -> None:
    server.operator_responses = operator_answer([0] * 4, [], 4, options_message(None, True, None))

    with pytest.raises(Internal, match="0 flags for 4 values"):
        client.profile_operators(DenseOperator(np.eye(4)), certify=True)


def test_a_server_without_operators_is_unimplemented(client: Client) -> None:
    with pytest.raises(Unimplemented):
        client.profile_operators(DenseOperator(np.eye(4)))
