"""What grpc.health.v1 answers."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

READINESS = ("", "ess.v1.EssProfiler", "inference.GRPCInferenceService")
LIVENESS = "liveness"


def is_serving(address, service=""):
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30, wait_for_ready=True)
    return answer.status == health_pb2.HealthCheckResponse.SERVING
