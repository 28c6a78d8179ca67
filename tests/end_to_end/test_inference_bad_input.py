"""Hostile requests of the Open Inference Protocol: each gets its code and its name."""

import struct

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from ess_client import Client
from ess_client._proto.ess.v1 import models_pb2

from . import tiny_models
from .inference import (
    connected,
    parameter,
    set_parameters,
    tensors,
    text_request,
    tokens_request,
)
from .server_process import ServerProcess

Code = grpc.StatusCode
GOOD = tokens_request([[1, 2, 3], [4, 5, 6]])


def changed(change, base=GOOD):
    request = service_pb2.ModelInferRequest()
    request.CopyFrom(base)
    change(request)
    return request


def shape(*sizes, raw=None):
    def change(request):
        request.inputs[0].shape[:] = sizes
        if raw is not None:
            request.raw_input_contents[0] = raw

    return changed(change)


def raw_text(raw, count=1):
    request = service_pb2.ModelInferRequest(model_name="tiny-llama")
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[count])
    request.raw_input_contents.append(raw)
    return request


def with_input(field, name, value):
    return changed(lambda request: set_parameters(getattr(request, field)[0], {name: value}))


def typed(**contents):
    def change(request):
        del request.raw_input_contents[:]
        for field, values in contents.items():
            getattr(request.inputs[0].contents, field).extend(values)

    return changed(change)


def twice(request):
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def ten_thousand(request):
    for number in range(10_000):
        request.inputs.add(name=f"INPUT{number}", datatype="INT64", shape=[1])
        request.raw_input_contents.append(bytes(8))


def with_typed_too(request):
    request.inputs[0].contents.int64_contents.extend([1, 2, 3, 4, 5, 6])


BAD = {
    "one byte short": (shape(2, 3, raw=bytes(47)), "47 bytes of raw contents; 6 elements"),
    "one byte more": (shape(2, 3, raw=bytes(49)), "49 bytes"),
    "no bytes": (shape(2, 3, raw=b""), "0 bytes"),
    "another shape": (shape(3, 3), "9 elements of INT64 take 72"),
    "negative size": (shape(-2, -3), "negative size"),
    "any size": (shape(-1, 3), "negative size"),
    "overflow": (shape(1 << 32, 1 << 32), "more than 2^63 elements"),
    "overflow to the right count": (shape((1 << 62) + 1, 4), "2^63"),
    "huge and not overflowing": (shape(1 << 31, 1 << 31), "prompts in one request; the limit"),
    "one dimension": (shape(6), "1 dimensions; 2 are expected"),
    "no dimensions": (shape(), "0 dimensions; 2 are expected"),
    "10000 dimensions": (shape(*[1] * 10_000), "10000 dimensions"),
    "no prompts": (shape(0, 3, raw=b""), "at least 1 is needed"),
    "no tokens": (shape(2, 0, raw=b""), "at least 1 is needed"),
    "too many prompts": (tokens_request(np.ones((257, 1))), "257 prompts"),
    "raw and typed": (changed(with_typed_too), "all inputs raw or all typed"),
    "neither raw nor typed": (typed(), "there is no data"),
    "typed, too few": (typed(int64_contents=[1, 2]), "2 elements in int64_contents"),
    "typed, other field": (typed(int_contents=[1] * 6), "other fields than int64_contents"),
    "typed, two fields": (typed(int64_contents=[1] * 6, fp32_contents=[1]), "other fields"),
    "typed bytes": (typed(bytes_contents=[b"x"] * 6), "other fields"),
    "wrong type": (changed(lambda r: setattr(r.inputs[0], "datatype", "FP32")), "'FP32'"),
    "no type": (changed(lambda r: setattr(r.inputs[0], "datatype", "")), "''; INT32 or INT64"),
    "long type": (changed(lambda r: setattr(r.inputs[0], "datatype", "é" * 9999)), "datatype"),
    "wrong name": (changed(lambda r: setattr(r.inputs[0], "name", "tokens")), "no input 'tokens'"),
    "empty name": (changed(lambda r: setattr(r.inputs[0], "name", "")), "no input ''"),
    "no inputs": (service_pb2.ModelInferRequest(model_name="tiny-llama"), "neither of TOKENS"),
    "the same input twice": (changed(twice), "TOKENS is there twice"),
    "10000 inputs": (changed(ten_thousand), "no input 'INPUT0'"),
    "raw for nobody": (changed(lambda r: r.raw_input_contents.append(b"")), "2 entries for 1"),
    "length in INT64": (
        changed(
            lambda r: setattr(r.inputs[1], "datatype", "INT64"), tokens_request([[1]], lengths=[1])
        ),
        "'INT64'; INT32 is expected",
    ),
    "length 0": (tokens_request([[1, 2]], lengths=[0]), "LENGTHS: 0 at index 0"),
    "length beyond": (tokens_request([[1, 2]], lengths=[3]), "LENGTHS: 3 at index 0"),
    "negative length": (tokens_request([[1, 2]], lengths=[-1]), "LENGTHS: -1"),
    "lengths of others": (tokens_request([[1, 2]], lengths=[1, 1]), "2 lengths for the 1 prompts"),
    "text, length too large": (raw_text(b"\xff\xff\xff\xff"), "4294967295 bytes; 0 are left"),
    "text, one short": (raw_text(struct.pack("<I", 5) + b"four"), "5 bytes; 4 are left"),
    "text, cut length": (raw_text(b"\x01\x00"), "2 bytes of raw contents"),
    "text, one too many": (raw_text(struct.pack("<I", 1) + b"ab"), "1 bytes of raw contents are"),
    "text, too few": (raw_text(struct.pack("<I", 4) + b"four", count=2), "end after 1 elements"),
    "empty text": (raw_text(bytes(4)), "text at index 0 is empty"),
    "text that is not UTF-8": (raw_text(struct.pack("<I", 2) + b"\xc3\x28"), "UTF-8"),
    "token id of nobody": (tokens_request([[1, 300]]), "TOKENS: token id 300 at index 1"),
    "negative token id": (tokens_request([[-1]]), "token id -1"),
    "sequence_id": (tokens_request([[1]], sequence_id=5), "no stateful sequences"),
    "sequence_start": (tokens_request([[1]], sequence_start=True), "no stateful sequences"),
    "sequence_end": (tokens_request([[1]], sequence_end=True), "no stateful sequences"),
    "kind": (tokens_request([[1]], kind="tolerance"), "no 'kind'"),
    "tolerance": (tokens_request([[1]], tolerance=0.1), "no 'tolerance'; did you mean 'measures'"),
    "reduce": (tokens_request([[1]], reduce="heads"), "no 'reduce'"),
    "dtype": (tokens_request([[1]], dtype="bf16"), "no 'dtype'"),
    "layer": (tokens_request([[1]], layer="0"), "did you mean 'layers'?"),
    "layers that do not exist": (tokens_request([[1]], layers="0-7"), "layers: index 7"),
    "layers of no name": (tokens_request([[1]], layers="007.mamba"), "no mixing operator"),
    "heads that do not exist": (tokens_request([[1]], heads="9"), "heads: index 9"),
    "positions that do not exist": (tokens_request([[1]], positions="5"), "positions: index 5"),
    "layers as a float": (tokens_request([[1]], layers=1.5), "is a double_param"),
    "no measure": (tokens_request([[1]], measures=""), "measures: "),
    "unknown measure": (tokens_request([[1]], measures="rank"), "measures: "),
    "causal of attention": (tokens_request([[1, 2]], measures="causal"), "causal is for recur"),
    "horizon 0": (tokens_request([[1]], horizon=0), "horizon: 0"),
    "empty final response as text": (
        tokens_request([[1]], triton_enable_empty_final_response="yes"),
        "a bool_param is expected",
    ),
    "another triton_ parameter": (tokens_request([[1]], triton_trace=True), "no 'triton_trace'"),
    "classification": (
        changed(
            lambda r: set_parameters(r.outputs[0], {"classification": 3}),
            tokens_request([[1]], outputs=["ESS"]),
        ),
        "classification",
    ),
    "shared memory": (with_input("inputs", "shared_memory_region", "r"), "shares no memory"),
    "shared memory size": (with_input("inputs", "shared_memory_byte_size", 4), "shares no memory"),
    "wrong output": (tokens_request([[1]], outputs=["logits"]), "no output 'logits'"),
    "certain without certify": (tokens_request([[1]], outputs=["CERTAIN"]), "certify only"),
}


@pytest.fixture
def stub(server):
    with connected(server) as found:
        yield found


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_request_is_named(stub, name):
    request, text = BAD[name]
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(request, timeout=30)
    assert error.value.code() == Code.INVALID_ARGUMENT, error.value.details()
    assert text in error.value.details()

    (answer,) = stub.ModelStreamInfer(iter([request]), timeout=30)
    assert answer.error_message == f"[INVALID_ARGUMENT] {error.value.details()}"
    assert parameter(answer.infer_response, "triton_final_response") is True


def test_the_good_request_behind_them_is_good(stub):
    assert tensors(stub.ModelInfer(GOOD))["ESS"].shape == (2, 2, 3, 4, 3)


def test_models_and_versions_that_are_not_there_are_not_found(stub):
    for field, value in (("model_name", "nobody"), ("model_version", "2"), ("model_version", "x")):
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(changed(lambda r, f=field, v=value: setattr(r, f, v)))
        assert error.value.code() == Code.NOT_FOUND
        assert f"'{value}'" in error.value.details()
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(changed(lambda request: request.ClearField("model_name")))
    assert error.value.code() == Code.INVALID_ARGUMENT


def test_a_text_for_a_model_without_a_tokenizer_is_refused(stub):
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(text_request(["a"], model="no-tokenizer"))
    assert error.value.code() == Code.FAILED_PRECONDITION
    assert error.value.details().startswith("TEXT: prompt '0' is text")


def test_the_same_errors_come_in_the_same_words_each_time(stub):
    request = tokens_request([[1]], layer="0", hed="1", kind="x", tolerance=1.0)
    details = set()
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(request)
        details.add(error.value.details())
    assert len(details) == 1


def test_an_answer_above_the_limit_is_refused_before_the_run(tmp_path_factory, model_root):
    folder = tmp_path_factory.mktemp("small")
    config = folder / "server.textproto"
    config.write_text("max_inference_answer_bytes: 1000\n")
    with (
        ServerProcess(f"--config={config}", f"--model_root={model_root}") as server,
        connected(server) as stub,
    ):
        request = tokens_request(np.full((1, 12), 3))  # 2 measures, 3 layers, 4 heads: 1152 bytes.
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(request)
        assert error.value.code() == Code.INVALID_ARGUMENT
        for part in ("1152 bytes", "[1, 2, 3, 4, 12]", "max_inference_answer_bytes"):
            assert part in error.value.details()
        for way_out in ("ModelStreamInfer", "Profile", "SubmitJob"):
            assert way_out in error.value.details()
        assert server.metric("ess_tokens_total", model="tiny-llama") == 0

        # Layer by layer it fits; what fits in one answer is answered in one.
        streamed = [message.infer_response for message in stub.ModelStreamInfer(iter([request]))]
        assert [tensors(answer)["ESS"].nbytes for answer in streamed] == [384] * 3
        assert tensors(stub.ModelInfer(tokens_request(np.full((1, 10), 3))))["ESS"].nbytes == 960

        # And a layer that does not fit has no way but the others.
        large = tokens_request(np.full((1, 40), 3))
        (refused,) = stub.ModelStreamInfer(iter([large]))
        assert "1280 bytes" in refused.error_message
        assert "Profile" in refused.error_message


def test_a_model_that_cannot_be_loaded_is_unavailable_with_the_reason(tmp_path):
    tiny_models.make_llama(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with (
        ServerProcess(f"--model_root={tmp_path}") as server,
        connected(server) as stub,
        Client(server.address) as client,
    ):
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(tokens_request([[1]], model="broken"))
            assert error.value.code() == Code.UNAVAILABLE
            assert "model 'broken' could not be loaded" in error.value.details()
        ready = service_pb2.ModelReadyRequest(name="broken")
        assert not stub.ModelReady(ready).ready
        (entry,) = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()).models
        assert entry.state == "UNAVAILABLE"
        assert entry.reason
        assert not stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models
        assert (
            client.model("broken").state
            == models_pb2.ModelState.Name(models_pb2.MODEL_STATE_FAILED)
            .removeprefix("MODEL_STATE_")
            .lower()
        )
