"""What perf_analyzer asks of a server, replayed as messages: one test for each row of the table of
what happened when it did not get it (docs/inference-protocol.md).

perf_analyzer itself needs a newer C library than the machines that run the tests have.
"""

import queue
import random
import threading

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from .inference import connected, parameter, tensors, text_request, tokens_request
from .server_process import wait_for

MODEL = "tiny-llama"
PERF = {"triton_enable_empty_final_response": True}  # On every request, unary ones too.


@pytest.fixture
def stub(server):
    with connected(server) as found:
        yield found


class Stream:
    """Requests that are sent one by one on an open stream, and what comes back."""

    def __init__(self, stub, **options):
        self.sent = queue.Queue()
        self.call = stub.ModelStreamInfer(iter(self.sent.get, None), **options)

    def send(self, request):
        self.sent.put(request)

    def take(self, count):
        return [next(self.call) for _ in range(count)]

    def close(self):
        """Ends the requests; what was left of the answers."""
        self.sent.put(None)
        return list(self.call)


def statistics(stub, version=""):
    request = service_pb2.ModelStatisticsRequest(name=MODEL, version=version)
    return stub.ModelStatistics(request).model_stats


def test_full_set_the_calls_come_in_its_order(stub):
    metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=MODEL))
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name=MODEL)).config
    extensions = stub.ServerMetadata(service_pb2.ServerMetadataRequest()).extensions
    before = statistics(stub)
    answer = stub.ModelInfer(tokens_request([[1, 2, 3]], model=metadata.name, **PERF))
    after = statistics(stub)

    assert config.name == metadata.name == MODEL
    assert "statistics" in extensions
    assert len(before) == len(after) == 1
    assert tensors(answer)["ESS"].shape == (1, 2, 3, 4, 3)


def test_no_model_config_it_is_there_and_agrees_with_the_metadata(stub):
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name=MODEL)).config
    metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=MODEL))
    names = {"BYTES": "TYPE_STRING"}
    for ours, theirs in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        assert [entry.name for entry in ours] == [entry.name for entry in theirs]
        for entry, other in zip(ours, theirs, strict=True):
            kind = type(other).DESCRIPTOR.fields_by_name["data_type"].enum_type
            expected = names.get(entry.datatype, f"TYPE_{entry.datatype}")
            assert kind.values_by_number[other.data_type].name == expected
    assert not config.model_transaction_policy.decoupled  # Otherwise ModelInfer is never tried.
    assert not config.HasField("sequence_batching")
    assert not config.HasField("ensemble_scheduling")


def test_statistics_not_advertised_inference_does_not_need_them(stub):
    assert tensors(stub.ModelInfer(tokens_request([[1, 2]], **PERF)))["ESS"].size > 0


def test_advertised_extensions_are_implemented(stub):
    extensions = set(stub.ServerMetadata(service_pb2.ServerMetadataRequest()).extensions)
    assert extensions == {
        "model_configuration",
        "statistics",
        "model_repository",
        "parameters",
        "schedule_policy",
    }
    stub.ModelConfig(service_pb2.ModelConfigRequest(name=MODEL))
    stub.ModelStatistics(service_pb2.ModelStatisticsRequest())
    stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    stub.ModelInfer(tokens_request([[1, 2]], layers="0", priority=2, timeout=60_000_000))


@pytest.mark.parametrize("version", ["", "1"])
def test_statistics_grow_under_the_version_that_answered(stub, version):
    (before,) = statistics(stub, version)
    stub.ModelInfer(tokens_request([[1, 2, 3], [4, 5, 6]], **PERF))
    (after,) = statistics(stub, version)

    # It looks for the version whose queue count grew.
    assert after.version == "1"
    assert after.inference_stats.queue.count == before.inference_stats.queue.count + 1
    assert after.inference_count == before.inference_count + 2
    assert after.execution_count == before.execution_count + 1
    assert after.last_inference >= before.last_inference
    ours, theirs = after.inference_stats, before.inference_stats
    parts = 0
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        grown = getattr(ours, stage).ns - getattr(theirs, stage).ns
        assert getattr(ours, stage).count == ours.success.count
        assert grown >= 0
        parts += grown
    assert ours.compute_infer.ns > theirs.compute_infer.ns
    assert parts <= ours.success.ns - theirs.success.ns
    (batch,) = [entry for entry in after.batch_stats if entry.batch_size == 2]
    assert batch.compute_infer.count >= 1
    assert after.memory_usage[0].byte_size > 0


def test_failures_are_counted_as_such(stub):
    (before,) = statistics(stub)
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(tokens_request([[1_000_000]]))
    (after,) = statistics(stub)
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert after.inference_stats.success == before.inference_stats.success


def test_versions_are_decimal_integers(stub):
    metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=MODEL))
    index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()).models
    answer = stub.ModelInfer(tokens_request([[1, 2]]))
    found = [*metadata.versions, answer.model_version, *(entry.version for entry in index)]
    assert found
    assert all(str(int(version)) == version for version in found)


def test_a_batch_has_its_size_first_and_metadata_shapes_begin_with_any(stub):
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name=MODEL)).config
    metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=MODEL))
    assert config.max_batch_size == 256
    assert all(entry.shape[0] == -1 for entry in [*metadata.inputs, *metadata.outputs])
    dims = {entry.name: list(entry.dims) for entry in config.input}
    assert dims["TOKENS"] == [-1]  # The batch is implied.
    answer = stub.ModelInfer(tokens_request(np.full((4, 7), 3), **PERF))
    assert tensors(answer)["ESS"].shape[0] == 4


@pytest.mark.parametrize("length", [1, 7, 33])
def test_a_variable_dimension_takes_any_shape(stub, length):
    answer = stub.ModelInfer(tokens_request(np.full((1, length), 3), **PERF))
    assert tensors(answer)["ESS"].shape[-1] == length


def test_typed_answers_would_abort_it_so_typed_requests_are_answered_raw(stub):
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    tokens = request.inputs.add(name="TOKENS", datatype="INT32", shape=[1, 3])
    tokens.contents.int_contents.extend([1, 2, 3])

    answer = stub.ModelInfer(request)

    raw = stub.ModelInfer(tokens_request([[1, 2, 3]]))
    assert tensors(answer)["ESS"].tobytes() == tensors(raw)["ESS"].tobytes()


@pytest.mark.parametrize("identity", ["", "0", "any \u00e9 text", "x" * 5000])
def test_the_id_comes_back_unchanged(stub, identity):
    request = tokens_request([[1, 2]], **PERF)
    request.id = identity
    assert stub.ModelInfer(request).id == identity
    stream = Stream(stub)
    stream.send(request)
    assert {message.infer_response.id for message in stream.take(3)} == {identity}
    stream.close()


def test_a_stream_of_a_model_that_is_not_decoupled_works(stub):
    stream = Stream(stub)
    for number in range(4):
        request = tokens_request([[1, 2, 3]], layers="1", **PERF)
        request.id = str(number)
        stream.send(request)
    answers = stream.take(4)
    assert stream.close() == []
    assert all(not message.error_message for message in answers)
    assert {message.infer_response.id for message in answers} == {"0", "1", "2", "3"}
    # One layer, one answer.
    assert all(parameter(message.infer_response, "triton_final_response") for message in answers)


def test_the_final_mark_comes_once_and_last_of_each_request(stub):
    stream = Stream(stub)
    for number in range(20):  # More than may be in flight.
        request = tokens_request(np.full((1, 2 + number), 3), **PERF)
        request.id = str(number)
        stream.send(request)
    answers = stream.take(60)
    assert stream.close() == []
    for number in range(20):
        mine = [m.infer_response for m in answers if m.infer_response.id == str(number)]
        finals = [parameter(response, "triton_final_response") for response in mine]
        assert finals == [False, False, True]
        assert [tensors(response)["LAYER"] for response in mine] == [["000"], ["001"], ["002"]]


def test_without_shared_memory_and_traces_their_calls_are_unimplemented(stub):
    for name in (
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    ):
        with pytest.raises(grpc.RpcError) as error:
            getattr(stub, name)(getattr(service_pb2, f"{name}Request")())
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert name in error.value.details()


def test_metrics_are_there_for_collect_metrics(server):
    assert server.metrics()  # It warns of names that it does not find.


def test_request_parameters_arrive_as_strings(stub):
    answer = stub.ModelInfer(tokens_request([[1, 2]], layers="0,1", **PERF))
    assert tensors(answer)["LAYER"] == ["000", "001"]


@pytest.mark.parametrize("seed", range(5))
def test_random_data_is_refused_by_its_value(stub, seed):
    values = [random.Random(seed).randrange(1 << 20, 1 << 31) for _ in range(8)]
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(tokens_request([values], **PERF))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"TOKENS: token id {values[0]} at index 0" in error.value.details()


def test_many_callers_at_once_are_all_answered(server, stub):
    found = []

    def work():
        for _ in range(5):
            found.append(tensors(stub.ModelInfer(tokens_request([[1, 2, 3]], **PERF)))["ESS"])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert len({ess.tobytes() for ess in found}) == 1
    wait_for(lambda: server.metric("ess_requests_in_flight", model=MODEL, rpc="ModelInfer") == 0)


def test_answers_say_what_a_papers_appendix_needs(stub):
    answer = stub.ModelInfer(text_request(["the quick brown fox"]))
    assert len(parameter(answer, "weight_digest")) == 64
    assert parameter(answer, "dtype") == "float32"
    assert parameter(answer, "device") == "cpu"
    assert parameter(answer, "architecture") == "llama"
    assert parameter(answer, "server_version")
    assert len(parameter(answer, "request_id")) == 16
    assert parameter(answer, "queue_ns") >= 0
    assert parameter(answer, "compute_ns") > 0
    assert parameter(answer, "triton_final_response") is None  # Of streams only.
