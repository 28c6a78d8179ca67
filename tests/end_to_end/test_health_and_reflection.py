"""The standard services beside ours."""

import socket
import subprocess
import threading

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from transformers import LlamaConfig

from .health import LIVENESS, READINESS, is_serving
from .server_process import SERVER, START_SECONDS


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as connected:
        yield connected


@pytest.mark.parametrize("service", [*READINESS, LIVENESS])
def test_health_is_serving(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
    assert next(stub.Watch(request)).status == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_loads_its_first_models_is_live_and_not_ready(tmp_path):
    """The port is open before the ready line; whoever asks learns that it is too early."""
    large = LlamaConfig(hidden_size=1024, num_hidden_layers=16, intermediate_size=4096)
    large.save_pretrained(tmp_path / "large")
    config = tmp_path / "server.textproto"
    config.write_text(
        f'models {{ name: "large" path: "{tmp_path / "large"}" '
        "options { random_init { seed: 1 } } } preload: 'large'"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [SERVER, f"--config={config}", f"--listen={address}", "--metrics_listen=127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        early = {service: is_serving(address, service) for service in (*READINESS, LIVENESS)}
        assert process.stdout.readline().startswith("ess_server ready")
        assert early == {**dict.fromkeys(READINESS, False), LIVENESS: True}
        assert all(is_serving(address, service) for service in READINESS)
    finally:
        timer.cancel()
        process.terminate()
        process.wait()
        process.stdout.close()


def test_health_of_an_unknown_service_is_not_found(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_every_method(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {
        "ess.v1.EssProfiler",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    } <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("ess.v1.EssProfiler")
    assert {method.name for method in service.methods} == {
        "Profile",
        "ProfileOperators",
        "EstimateProfile",
        "ListModels",
        "GetModel",
        "LoadModel",
        "UnloadModel",
        "SubmitJob",
        "GetJob",
        "ListJobs",
        "WatchJob",
        "CancelJob",
        "DeleteJob",
        "FetchJobResult",
        "GetServerInfo",
    }
