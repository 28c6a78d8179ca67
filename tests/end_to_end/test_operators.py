"""ProfileOperators over the wire: operators of every class against float64 SVDs by numpy."""

import threading
import time

import grpc
import numpy as np
import pytest
import torch

from ess_client import (
    Client,
    Convolution,
    DeadlineExceeded,
    DenseOperator,
    DiagonalRecurrence,
    EssError,
    ResourceExhausted,
)
from ess_client._operator_stream import operator_requests
from ess_client._proto.ess.v1 import measures_pb2, operators_pb2, profiler_pb2_grpc

from .dense_operators import CASES, CLASSES, L
from .server_process import ServerProcess
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


# --- What is refused, straight on the wire.


def stream(server, messages, timeout=60):
    """All answers to these messages."""
    with grpc.insecure_channel(server.address) as channel:
        return list(
            profiler_pb2_grpc.EssProfilerStub(channel).ProfileOperators(
                iter(messages), timeout=timeout
            )
        )


def messages_of(operator):
    return list(operator_requests(operator, [], measures_pb2.MeasureOptions(), None))


def declared(**changes):
    """A declaration of T [2, 4, 4] with changes to the argument's fields."""
    fields = {"name": "T", "dtype": operators_pb2.OPERATOR_DTYPE_FLOAT64, "shape": [2, 4, 4]}
    argument = operators_pb2.OperatorArgument(**{**fields, **changes})
    return operators_pb2.ProfileOperatorsRequest(
        declaration=operators_pb2.OperatorDeclaration(
            operator_class=operators_pb2.OPERATOR_CLASS_DENSE, arguments=[argument]
        )
    )


def piece(first, values, argument=0):
    data = operators_pb2.OperatorData(
        argument=argument, first_element=first, values=np.asarray(values, "<f8").tobytes()
    )
    return operators_pb2.ProfileOperatorsRequest(data=data)


ZEROS = np.zeros(32)
NAN = np.where(np.arange(32) == 20, np.nan, 0)
INFINITE = np.where(np.arange(32) == 0, -np.inf, 0)
ABOVE = np.where(np.arange(32) == 22, 1.0, 0)
EMPTY = operators_pb2.ProfileOperatorsRequest()
READ_BEFORE = declared()
READ_BEFORE.declaration.read_order = operators_pb2.READ_ORDER_BEFORE
NO_CLASS = declared()
NO_CLASS.declaration.operator_class = 0
TWICE = declared()
TWICE.declaration.arguments.append(TWICE.declaration.arguments[0])
NO_HORIZON = declared()
NO_HORIZON.declaration.options.horizon = 0

REFUSED = {
    "nothing": ([], ["declaration"]),
    "an empty message": ([EMPTY], ["neither a declaration nor data"]),
    "data before the declaration": ([piece(0, ZEROS)], ["before the declaration"]),
    "two declarations": ([declared(), declared()], ["declaration"]),
    "no class": ([NO_CLASS], ["operator_class: 0"]),
    "an unknown argument": ([declared(name="S")], ["DenseOperator has no argument S", "T"]),
    "an argument twice": ([TWICE], ["DenseOperator.T", "twice"]),
    "no dtype": ([declared(dtype=0)], ["dtype: 0"]),
    "a complex matrix": (
        [declared(dtype=operators_pb2.OPERATOR_DTYPE_COMPLEX64)],
        ["DenseOperator.T", "float32 or float64"],
    ),
    "too few dimensions": ([declared(shape=[4])], ["DenseOperator.T", "[4]", "[..., L, L]"]),
    "no square": ([declared(shape=[4, 5])], ["DenseOperator.T", "L = 5", "4"]),
    "a dimension of 0": ([declared(shape=[0, 0])], ["DenseOperator.T", "[0, 0]", "at least 1"]),
    "a negative dimension": ([declared(shape=[-1, 4, 4])], ["DenseOperator.T", "[-1, 4, 4]"]),
    "read before of a matrix": ([READ_BEFORE], ["DenseOperator is no recurrence"]),
    "too many dimensions": ([declared(shape=[1] * 17)], ["17 dimensions", "16"]),
    "too long": ([declared(shape=[9000, 9000])], ["9000", "8192", "max_operator_length"]),
    "too many operators": ([declared(shape=[70000, 1, 1])], ["70000", "max_operator_batch"]),
    "too many bytes": ([declared(shape=[3, 8192, 8192])], ["max_operator_bytes", "1073741824"]),
    "more than can be": ([declared(shape=[1 << 40, 1 << 40, 4, 4])], ["DenseOperator"]),
    "horizon 0": ([NO_HORIZON], ["options.horizon: 0"]),
    "too much data": ([declared(), piece(0, np.zeros(33))], ["33 elements", "32"]),
    "data after the end": ([declared(), piece(0, ZEROS), piece(32, [0.0])], ["complete"]),
    "too little data": ([declared(), piece(0, ZEROS[:20])], ["20 of 32 elements", "'T'"]),
    "no data": ([declared()], ["0 of 32 elements", "'T'"]),
    "a gap": ([declared(), piece(0, ZEROS[:4]), piece(5, ZEROS[5:])], ["first_element: 5", "4"]),
    "an overlap": ([declared(), piece(0, ZEROS[:4]), piece(3, ZEROS[3:])], ["first_element: 3"]),
    "an unknown ordinal": ([declared(), piece(0, ZEROS, argument=1)], ["data.argument: 1"]),
    "an empty piece": ([declared(), piece(0, [])], ["0 bytes"]),
    "a NaN": ([declared(), piece(0, NAN)], ["DenseOperator.T is nan", "[1, 1, 0]"]),
    "an infinity": ([declared(), piece(0, INFINITE)], ["DenseOperator.T is -inf", "[0, 0, 0]"]),
    "above the diagonal": ([declared(), piece(0, ABOVE)], ["DenseOperator.T is 1", "[1, 1, 2]"]),
    "a message above 1 MiB": (
        [declared(shape=[512, 512]), piece(0, np.zeros(140000))],
        ["1048576", "message"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_stream_is_refused_and_harms_nothing(server, client, case):
    messages, parts = REFUSED[case]

    with pytest.raises(grpc.RpcError) as error:
        stream(server, messages)

    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    for part in parts:
        assert part in error.value.details()
    good = client.profile_operators(DenseOperator(np.tril(np.ones((4, 4)))))
    assert good.ess.values.tolist() == [[0, 1, 1, 1]]
    assert server.metric("ess_requests_in_flight", model="", rpc="ProfileOperators") == 0


def test_a_declaration_is_refused_before_the_data_has_come(server):
    """The caller still holds the stream open when the answer comes."""
    hold = threading.Event()

    def messages():
        yield declared(shape=[9000, 9000])
        hold.wait(30)

    with grpc.insecure_channel(server.address) as channel:
        call = profiler_pb2_grpc.EssProfilerStub(channel).ProfileOperators(messages(), timeout=30)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            next(call)
        hold.set()
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert time.monotonic() - began < 10


def test_products_that_overflow_are_the_callers_fault(client):
    gates = np.full((2, 12, 1), 0.5)
    gates[1] = 1e200
    ones = np.ones((12, 2))

    with pytest.raises(EssError, match="of operator 1 of the batch is inf") as error:
        client.profile_operators(DiagonalRecurrence(gates, ones, ones))
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT


# --- Cancelling, queueing, limits.

LONG = DenseOperator(
    np.broadcast_to(
        np.tril(np.random.default_rng(1).standard_normal((700, 700)).astype(np.float32)),
        (16, 700, 700),
    )
)
LONG_ARGUMENTS = {"measures": [f"tolerance:{10.0**-k:g}" for k in range(1, 6)]}


@pytest.fixture
def own_server(tmp_path):
    config = tmp_path / "server.textproto"
    config.write_text("max_queued_profiles: 1\nmax_uploaded_bytes: 40000000")
    with ServerProcess(f"--config={config}", f"--model_root={tmp_path}") as process:
        yield process


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def in_flight(server):
    return server.metric("ess_requests_in_flight", model="", rpc="ProfileOperators")


def queued(server):
    return server.metric("ess_queue_requests", model="", priority="normal")


def test_a_deadline_stops_the_work(own_server):
    with Client(own_server.address) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.profile_operators(LONG, **LONG_ARGUMENTS, timeout=0.6)
        wait_for(lambda: in_flight(own_server) == 0, 5)
        assert time.monotonic() - began < 5
        cancelled = [
            own_server.metric("ess_requests_cancelled_total", model="", stage=stage)
            for stage in ("receiving", "running")
        ]
        assert sum(cancelled) == 1
        client.profile_operators(DenseOperator(np.eye(4)), timeout=5)


def test_leaving_in_the_middle_of_the_upload_ends_the_call(own_server):
    with grpc.insecure_channel(own_server.address) as channel:
        hold = threading.Event()

        def messages():
            yield from messages_of(LONG)[:5]
            hold.wait(30)

        call = profiler_pb2_grpc.EssProfilerStub(channel).ProfileOperators(messages(), timeout=60)
        wait_for(
            lambda: own_server.metric("ess_grpc_received_bytes_total", rpc="ProfileOperators") > 1e6
        )
        call.cancel()
        hold.set()
        wait_for(lambda: in_flight(own_server) == 0)
    receiving = own_server.metric("ess_requests_cancelled_total", model="", stage="receiving")
    assert receiving == 1
    # Its bytes are free again: two such uploads do not fit at once.
    with Client(own_server.address) as client:
        client.profile_operators(LONG, measures="frobenius_norm", positions=1)


def run_long(server, timeout, seen):
    def run():
        with Client(server.address) as client:
            try:
                client.profile_operators(LONG, **LONG_ARGUMENTS, timeout=timeout)
            except EssError as error:
                seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_what_does_not_fit_is_refused_and_a_cancelled_wait_gives_its_bytes_back(own_server):
    """One call of 31 MB runs; what would exceed the 40 MB of all calls is refused."""
    seen = []
    first = run_long(own_server, 60, seen)
    wait_for(lambda: "rpc=ProfileOperators" not in own_server.log() and in_flight(own_server) == 1)
    small = DenseOperator(np.zeros((1, 700, 700)))  # 4 MB.
    with Client(own_server.address) as client:
        wait_for(lambda: own_server.metric("ess_queue_wait_seconds_count", model="") == 1)
        with pytest.raises(ResourceExhausted, match="max_uploaded_bytes"):
            client.profile_operators(LONG)
        shed = own_server.metric("ess_requests_shed_total", model="", reason="operator_bytes")
        assert shed == 1
        # Waits behind the first, is cancelled there, and its 4 MB are free at once.
        with pytest.raises(DeadlineExceeded):
            client.profile_operators(small, timeout=0.3)
        cancelled = own_server.metric("ess_requests_cancelled_total", model="", stage="queued")
        assert cancelled == 1
        with pytest.raises(ResourceExhausted, match="max_queued_profiles"):
            client.profile_operators(small)
    first.join()
    assert not seen


def test_a_slow_reader_holds_back_the_work(server):
    operator = Convolution(np.random.default_rng(0).standard_normal((20000, 64)))
    declaration, *data = operator_requests(operator, [], measures_pb2.MeasureOptions(), None)
    for k in range(1, 9):
        declaration.declaration.measures.add(tolerance=0.2 * k)
    before = server.metric("ess_stream_stalled_seconds_total", rpc="ProfileOperators")
    with grpc.insecure_channel(server.address) as channel:
        call = profiler_pb2_grpc.EssProfilerStub(channel).ProfileOperators(
            iter([declaration, *data]), timeout=300
        )
        next(call)
        sent = -1.0
        while True:  # Until the server sends no more: it has stalled, or all is sent.
            time.sleep(1)
            now = server.metric("ess_grpc_sent_bytes_total", rpc="ProfileOperators")
            if now == sent:
                break
            sent = now
        answers = list(call)
    assert sum(answer.ByteSize() for answer in answers) > 30e6
    assert max(answer.ByteSize() for answer in answers) <= 1 << 20
    stalled = server.metric("ess_stream_stalled_seconds_total", rpc="ProfileOperators") - before
    assert stalled > 0.5


def test_the_call_is_logged_once_with_what_it_was_about(server, client):
    client.profile_operators(DenseOperator(np.tril(np.ones((3, 5, 5)))))

    lines = [line for line in server.log().splitlines() if "rpc=ProfileOperators" in line]
    assert "class=DenseOperator operators=3 positions=5 code=OK" in lines[-1]
    assert "ess=" in lines[-1]
