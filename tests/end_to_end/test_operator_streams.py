"""The stream of ProfileOperators: what is refused, cancelled, held back."""

import contextlib
import threading
import time

import grpc
import numpy as np
import pytest

from ess_client import (
    Client,
    Convolution,
    DeadlineExceeded,
    DenseOperator,
    EssError,
    ResourceExhausted,
)
from ess_client._operator_stream import operator_requests
from ess_client._proto.ess.v1 import measures_pb2, operators_pb2, profiler_pb2_grpc

from .server_process import ServerProcess, wait_for


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
    "an unknown argument": ([declared(name="S")], ["DenseOperator has no argument 'S'", "T"]),
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
    good = client.profile_operators(
        DenseOperator(np.tril(np.ones((4, 4)))), measures=["tolerance:1e-3"]
    )
    assert good.ess.values.tolist() == [[0, 1, 1, 1]]
    wait_for(lambda: in_flight(server) == 0)


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


LONG = DenseOperator(
    np.broadcast_to(
        np.tril(np.random.default_rng(1).standard_normal((700, 700)).astype(np.float32)),
        (16, 700, 700),
    )
)
LONG_MEASURE = "singular_values:2"  # An SVD at every position: half a minute.


@pytest.fixture
def own_server(tmp_path):
    config = tmp_path / "server.textproto"
    config.write_text("max_queued_profiles: 1\nmax_uploaded_bytes: 40000000")
    with ServerProcess(f"--config={config}", f"--model_root={tmp_path}") as process:
        yield process


def in_flight(server):
    return server.metric("ess_requests_in_flight", model="", rpc="ProfileOperators")


def cancelled(server):
    stages = ("receiving", "queued", "running", "sending")
    return sum(
        server.metric("ess_requests_cancelled_total", model="", stage=stage) for stage in stages
    )


def queued(server):
    return server.metric("ess_queue_requests", model="", priority="normal")


def test_a_deadline_stops_the_work(own_server):
    with Client(own_server.address) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.profile_operators(LONG, measures=LONG_MEASURE, timeout=0.6)
        wait_for(lambda: in_flight(own_server) == 0, 5)
        assert time.monotonic() - began < 5
        wait_for(lambda: cancelled(own_server) == 1)
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
    wait_for(
        lambda: own_server.metric("ess_requests_cancelled_total", model="", stage="receiving") == 1
    )
    # Its bytes are free again: two such uploads do not fit at once.
    with Client(own_server.address) as client:
        client.profile_operators(LONG, measures="frobenius_norm", positions=1)


def test_what_does_not_fit_is_refused_and_a_cancelled_wait_gives_its_bytes_back(own_server):
    """One call of 31 MB runs; what would exceed the 40 MB of all calls is refused."""

    def hold(holder):
        with pytest.raises((EssError, ValueError)):  # Closed below, long before it is done.
            holder.profile_operators(LONG, measures=LONG_MEASURE)

    small = np.zeros((1, 700, 700))  # 4 MB.
    with Client(own_server.address) as holder, Client(own_server.address) as client:
        thread = threading.Thread(target=hold, args=(holder,))
        thread.start()
        wait_for(lambda: own_server.metric("ess_queue_wait_seconds_count", model="") == 1)
        with pytest.raises(ResourceExhausted, match="max_uploaded_bytes"):
            client.profile_operators(LONG)
        wait_for(
            lambda: (
                own_server.metric("ess_requests_shed_total", model="", reason="operator_bytes") == 1
            )
        )

        with pytest.raises(DeadlineExceeded):
            client.profile_operators(DenseOperator(small), timeout=0.5)
        wait_for(
            lambda: own_server.metric("ess_requests_cancelled_total", model="", stage="queued") == 1
        )
        # Its place and its bytes are free: 8 MB fit again, and wait.
        with pytest.raises(DeadlineExceeded):
            client.profile_operators(DenseOperator(np.concatenate([small, small])), timeout=0.5)
        holder.close()
        thread.join(30)
        assert not thread.is_alive()


def test_calls_that_end_at_any_moment_leave_nothing_behind(own_server):
    """Deadlines and cancels from the first message to the last answer."""
    operator = DenseOperator(np.tril(np.random.default_rng(2).standard_normal((6, 400, 400))))
    seconds = np.linspace(0.001, 0.25, 60)

    def run(share):
        with Client(own_server.address) as client:
            for timeout in seconds[share::3]:
                with contextlib.suppress(DeadlineExceeded, ResourceExhausted):
                    client.profile_operators(operator, timeout=timeout)

    threads = [threading.Thread(target=run, args=(share,)) for share in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_for(lambda: in_flight(own_server) == 0)
    assert queued(own_server) == 0
    with Client(own_server.address) as client:  # All 40 MB are free.
        client.profile_operators(LONG, measures="frobenius_norm", positions=1)


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
