"""What the Open Inference Protocol says of models, and what it does to them."""

import grpc
import pytest
from tritonclient.grpc import service_pb2

from .health import is_serving
from .inference import connected, tokens_request
from .server_process import ServerProcess

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def own_server(model_root):
    with ServerProcess(f"--model_root={model_root}") as process:
        yield process


@pytest.fixture
def stub(own_server):
    with connected(own_server) as found:
        yield found


def index(stub, **fields):
    models = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(**fields)).models
    return {model.name: model for model in models}


def test_a_model_that_is_not_in_memory_is_ready_and_says_so(stub):
    assert stub.ModelReady(service_pb2.ModelReadyRequest(name="tiny-gpt2")).ready
    entry = index(stub, ready=True)["tiny-gpt2"]
    assert (entry.state, entry.version) == ("READY", "1")
    assert "first request loads it" in entry.reason
    # Another reader of the same field: properties are not in Triton's copy of the message.
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name="tiny-gpt2")).config
    assert config.parameters["loads_on_demand"].string_value == "true"
    assert config.parameters["architecture"].string_value == "gpt2"


def test_load_and_unload(stub, own_server):
    request = service_pb2.RepositoryModelLoadRequest(model_name="tiny-gpt2")
    stub.RepositoryModelLoad(request)
    config = stub.ModelConfig(service_pb2.ModelConfigRequest(name="tiny-gpt2")).config
    facts = {name: value.string_value for name, value in config.parameters.items()}
    assert facts["dtype"] == "float32"
    assert facts["layers"] == "2"
    assert facts["operator_classes"] == "DenseOperator"
    assert own_server.metric("ess_model_state", model="tiny-gpt2", state="ready") == 1

    unload = service_pb2.RepositoryModelUnloadRequest(model_name="tiny-gpt2")
    unload.parameters["unload_dependents"].bool_param = False  # As tritonclient sends it.
    stub.RepositoryModelUnload(unload)
    assert own_server.metric("ess_model_state", model="tiny-gpt2", state="ready") == 0


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_loads_and_unloads_that_cannot_be(stub, method):
    kind = getattr(service_pb2, f"{method}Request")
    config = kind(model_name="tiny-llama")
    config.parameters["config"].string_param = "{}"
    for request, code, text in (
        (kind(model_name="nobody"), Code.NOT_FOUND, "nobody"),
        (kind(), Code.NOT_FOUND, "''"),
        (kind(repository_name="other"), Code.INVALID_ARGUMENT, "repository 'other'"),
        (config, Code.INVALID_ARGUMENT, "'config' is not taken"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            getattr(stub, method)(request)
        assert error.value.code() == code
        assert text in error.value.details()


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_what_is_not_there_is_not_found(stub, method):
    kind = getattr(service_pb2, f"{method}Request")
    for fields in ({"name": "nobody"}, {"name": "tiny-llama", "version": "7"}):
        with pytest.raises(grpc.RpcError) as error:
            getattr(stub, method)(kind(**fields))
        assert error.value.code() == Code.NOT_FOUND


def test_statistics_of_all_models_have_each_of_them(stub):
    stub.ModelInfer(tokens_request([[1, 2]]))
    stats = stub.ModelStatistics(service_pb2.ModelStatisticsRequest()).model_stats
    assert [entry.name for entry in stats] == sorted(index(stub))
    counts = {entry.name: entry.inference_stats.success.count for entry in stats}
    assert counts["tiny-llama"] >= 1
    assert counts["no-tokenizer"] == 0


def test_requests_have_log_lines_and_ids_and_so_have_those_of_streams(stub, own_server):
    request = tokens_request([[1, 2]])
    request.id = "from-the-log"
    list(stub.ModelStreamInfer(iter([request, request])))
    own_server.wait_until_idle()
    lines = [line for line in own_server.log().splitlines() if "inference_id=from-the-log" in line]
    assert len(lines) == 2
    assert all("rpc=ModelStreamInfer" in line and "model=tiny-llama" in line for line in lines)
    counted = own_server.metric(
        "ess_requests_total", model="tiny-llama", rpc="ModelStreamInfer", code="OK"
    )
    assert counted == 2
    assert own_server.metric("ess_grpc_handled_total", rpc="ModelStreamInfer", code="OK") == 1


def test_health_names_the_service(own_server):
    assert is_serving(own_server.address, "inference.GRPCInferenceService")
