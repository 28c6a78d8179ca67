"""ProfileOperators over the wire: operators of every class against float64 SVDs by numpy."""

import grpc
import numpy as np
import pytest
import torch

from ess_client import (
    DenseOperator,
    DiagonalRecurrence,
    EssError,
)

from .dense_operators import CASES, CLASSES, L
from .server_process import wait_for
from .test_profile import singular_values

THRESHOLDS = ["tolerance:0.05", "relative:0.05", "head_relative:0.05"]
OTHERS = ["entropy", "spectral_norm", "frobenius_norm", "singular_values:3"]


def assert_counts(found, sigmas, largest):
    """`found`: [3 thresholds]. Values within 1e-9 of the threshold may count either way."""
    first = sigmas[0] if len(sigmas) else 0
    for count, threshold in zip(found, (0.05, 0.05 * first, 0.05 * largest), strict=True):
        assert (sigmas > threshold * (1 + 1e-9)).sum() <= count
        assert count <= (sigmas > threshold * (1 - 1e-9)).sum()


def entropy(sigmas):
    shares = sigmas[sigmas > 0] / sigmas.sum() if len(sigmas) else np.zeros(0)
    return np.exp(-(shares * np.log(shares)).sum()) if len(shares) else 0


@pytest.mark.parametrize(("name", "read"), CASES)
def test_every_measure_of_every_class_equals_its_definition(client, name, read):
    make, _, tss = CLASSES[name]
    operator, matrix = make(read)

    result = client.profile_operators(operator, measures=THRESHOLDS + OTHERS)

    every = singular_values(matrix)
    largest = max(s[0] for s in every if len(s))
    for i, sigmas in enumerate(every):
        value = {str(m): result.ess.sel(measure=m, position=i).values for m in [*OTHERS]}
        assert_counts(result.ess.values[:3, i, 0], sigmas, largest)
        padded = np.zeros(3)
        padded[: min(3, len(sigmas))] = sigmas[:3]
        np.testing.assert_allclose(value["singular_values:3"], padded, atol=1e-6)
        np.testing.assert_allclose(value["entropy"][0], entropy(sigmas), atol=1e-4)
        np.testing.assert_allclose(value["spectral_norm"][0], padded[0], atol=1e-6)
        np.testing.assert_allclose(value["frobenius_norm"][0], np.linalg.norm(sigmas), atol=1e-6)
    if tss is not None:
        assert result.tss.values.tolist() == [0, *map(tss, range(1, L))]
    floor = np.finfo(np.float64).eps * largest * np.sqrt(L)
    np.testing.assert_allclose(float(result.noise_floor), floor, rtol=1e-6)
    assert all(result.route.values())


@pytest.mark.parametrize("to", [np.float32, torch.float32])
def test_float32_from_numpy_and_torch_is_taken_as_it_is(client, to):
    matrix = np.tril(np.random.default_rng(3).standard_normal((20, 20))).astype(np.float32)
    argument = torch.from_numpy(matrix) if to is torch.float32 else matrix

    result = client.profile_operators(DenseOperator(argument), measures=THRESHOLDS)

    every = singular_values(matrix.astype(np.float64))
    largest = max(s[0] for s in every if len(s))
    for i, sigmas in enumerate(every):
        assert_counts(result.ess.values[:, i], sigmas, largest)
    floor = np.finfo(np.float32).eps * largest * np.sqrt(20)
    np.testing.assert_allclose(float(result.noise_floor), floor, rtol=1e-4)


def test_leading_dimensions_broadcast_and_stay(client):
    random = np.random.default_rng(5)
    a = 1 / (1 + np.exp(-random.standard_normal((2, 1, 9, 1))))
    b = random.standard_normal((3, 9, 4))
    c = random.standard_normal((9, 4))

    result = client.profile_operators(DiagonalRecurrence(a, b, c), measures="tolerance:0.1")

    assert result.ess.dims == ("measure", "batch_0", "batch_1", "position")
    assert result.ess.shape == (1, 2, 3, 9)
    assert result.noise_floor.shape == (2, 3)
    for x in range(2):
        for y in range(3):
            alone = client.profile_operators(
                DiagonalRecurrence(a[x, 0], b[y], c), measures="tolerance:0.1"
            )
            np.testing.assert_array_equal(result.ess.values[0, x, y], alone.ess.values[0])


def test_measures_default_to_the_servers(client):
    result = client.profile_operators(DenseOperator(np.eye(5)))

    assert tuple(result.ess.coords["measure"].values) == client.server_info().default_measures


def test_positions_pick_from_the_full_answer(client):
    operator = DenseOperator(np.tril(np.random.default_rng(2).standard_normal((3, 17, 17))))
    measures = [*THRESHOLDS, "entropy"]
    full = client.profile_operators(operator, measures=measures)
    part = client.profile_operators(operator, measures=measures, positions="1-16:5")

    assert part.ess.coords["position"].values.tolist() == [1, 6, 11, 16]
    np.testing.assert_array_equal(part.ess.values, full.ess.sel(position=[1, 6, 11, 16]).values)
    np.testing.assert_array_equal(part.noise_floor.values, full.noise_floor.values)


@pytest.mark.parametrize("measures", [["tolerance:0.5"], ["singular_values:2", "tolerance:0.5"]])
def test_reductions_are_means_of_the_full_answer(client, measures):
    operator = DenseOperator(np.tril(np.random.default_rng(2).standard_normal((2, 3, 11, 11))))
    full = client.profile_operators(operator, measures=measures).ess

    heads = client.profile_operators(operator, measures=measures, reduce="heads").ess
    positions = client.profile_operators(operator, measures=measures, reduce="positions").ess

    np.testing.assert_allclose(heads, full.mean(["batch_0", "batch_1"]), rtol=1e-6)
    np.testing.assert_allclose(
        positions, full.isel(position=slice(1, None)).mean("position"), rtol=1e-6
    )


def test_a_mean_over_position_zero_alone_is_not_a_number(client):
    result = client.profile_operators(DenseOperator(np.eye(3)), positions=0, reduce="positions")

    assert np.isnan(result.ess.values).all()


def test_a_horizon_cuts_the_future(client):
    matrix = np.tril(np.random.default_rng(4).standard_normal((18, 18)))
    measures = [*THRESHOLDS, "entropy", "frobenius_norm"]

    result = client.profile_operators(DenseOperator(matrix), measures=measures, horizon=4)

    blocks = [matrix[i : i + 4, :i] for i in range(18)]
    every = [np.linalg.svd(b, compute_uv=False) if b.size else np.zeros(0) for b in blocks]
    largest = max(s[0] for s in every if len(s))
    for i, sigmas in enumerate(every):
        assert_counts(result.ess.values[:3, i], sigmas, largest)
        np.testing.assert_allclose(result.ess.values[3, i], entropy(sigmas), atol=1e-4)
        np.testing.assert_allclose(result.ess.values[4, i], np.linalg.norm(sigmas), atol=1e-5)


def test_a_certificate_flags_every_value_and_changes_no_count(client):
    matrix = np.tril(np.random.default_rng(4).standard_normal((2, 18, 18)))
    plain = client.profile_operators(DenseOperator(matrix), measures=THRESHOLDS)

    certified = client.profile_operators(DenseOperator(matrix), measures=THRESHOLDS, certify=True)

    assert certified.certain is not None
    assert certified.certain.shape == certified.ess.shape
    assert certified.certain.all()
    np.testing.assert_array_equal(certified.ess.values, plain.ess.values)


def test_causal_ranks_are_of_recurrences_only(client):
    random = np.random.default_rng(6)
    recurrence = DiagonalRecurrence(
        np.full((10, 1), 0.9), random.standard_normal((10, 3)), random.standard_normal((10, 3))
    )

    result = client.profile_operators(recurrence, measures="causal")

    assert result.ess.values.tolist() == [[0, 1, 2, *[3] * 7]]
    with pytest.raises(EssError, match="causal"):
        client.profile_operators(DenseOperator(np.eye(4)), measures="causal")


def test_a_large_upload_streams_through(client, server):
    """100 MiB of operators, none of whose messages exceeds 1 MiB; the memory is given back."""
    one = np.tril(np.random.default_rng(8).standard_normal((512, 512)).astype(np.float32))
    before = server.metric("ess_grpc_received_bytes_total", rpc="ProfileOperators")

    result = client.profile_operators(
        DenseOperator(np.broadcast_to(one, (100, 512, 512))),
        measures="frobenius_norm",
        positions="0-511:64",
    )

    received = server.metric("ess_grpc_received_bytes_total", rpc="ProfileOperators") - before
    assert received > 100 << 20
    expected = [np.linalg.norm(one[i:, :i]) for i in range(0, 512, 64)]
    np.testing.assert_allclose(result.ess.values[0], np.tile(expected, (100, 1)), rtol=1e-5)


def test_products_that_overflow_are_the_callers_fault(client):
    gates = np.full((2, 12, 1), 0.5)
    gates[1] = 1e200
    ones = np.ones((12, 2))

    with pytest.raises(EssError, match="of operator 1 of the batch is inf") as error:
        client.profile_operators(DiagonalRecurrence(gates, ones, ones))
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_the_call_is_logged_once_with_what_it_was_about(server, client):
    client.profile_operators(DenseOperator(np.tril(np.ones((3, 5, 5)))))

    def lines():
        rpc = "rpc=ProfileOperators model= caller=ipv4:127.0.0.1 "
        what = "class=DenseOperator operators=3 positions=5 code=OK"
        return [line for line in server.log().splitlines() if rpc + what in line]

    wait_for(lines)
    assert len(lines()) == 1
    assert "ess=" in lines()[0]
