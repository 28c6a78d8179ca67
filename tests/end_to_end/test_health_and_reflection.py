"""The standard services beside ours."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from .health import LIVENESS, READINESS


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
