"""A real gRPC server whose answers a test writes down beforehand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc

from ess_client._proto.ess.v1 import (
    measures_pb2,
    models_pb2,
    operators_pb2,
    profiler_pb2,
    profiler_pb2_grpc,
    server_pb2,
)


class ReplayServer(profiler_pb2_grpc.EssProfilerServicer):
    """Answers Profile with `responses`, ProfileOperators with `operator_responses`, the rest with
    fixed values; keeps the requests. With `failure`, every call ends with that code and text, and
    with `failures` (code, text, trailing metadata) as many calls do. break_after: the first Profile
    is cut off after so many answers. With `credentials` it speaks TLS."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.responses: Iterable[Any] = ()
        self.operator_responses: Iterable[Any] | None = None
        self.requests: list[Any] = []
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.failures: list[tuple[grpc.StatusCode, str, tuple[Any, ...]]] = []
        self.break_after: int | None = None
        self.metadata: dict[str, str] = {}  # Of the newest call.
        self.seconds_left: list[float] = []  # To the deadline, of each call.
        self.on_profile: Callable[[], object] = lambda: None
        self.hold: threading.Event | None = None
        self.started, self.ended = threading.Event(), threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        profiler_pb2_grpc.add_EssProfilerServicer_to_server(self, self._server)
        port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> ReplayServer:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(0).wait()

    def Profile(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self._start(request, context)
        self.on_profile()
        context.add_callback(self.ended.set)
        self.started.set()
        for count, response in enumerate(self.responses):
            if count == self.break_after:
                self.break_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield response
            if self.hold is not None:
                self.hold.wait(10)

    def ProfileOperators(  # noqa: N802
        self, request_iterator: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        if self.operator_responses is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "ProfileOperators is not implemented")
        if self.failure is not None:
            context.abort(*self.failure)
        self.requests.extend(request_iterator)
        yield from self.operator_responses or ()

    def EstimateProfile(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        return profiler_pb2.EstimateProfileResponse(
            peak_bytes=96 << 20,
            seconds=2.5,
            routes=[
                profiler_pb2.RouteEstimate(
                    measure=0, operator_class="DenseOperator", route="inertia_tree"
                )
            ],
            response_bytes=3 << 20,
            stages=[
                profiler_pb2.StageSeconds(stage="forward", seconds=1.0),
                profiler_pb2.StageSeconds(stage="ess", seconds=1.5),
            ],
            measure_names=["tolerance:0.001"],
            token_count=7,
        )

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        return models_pb2.ListModelsResponse(models=[self._model("tiny")])

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        return self._model(request.name)

    def LoadModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        model = self._model(request.options.alias or request.name)
        model.options.CopyFrom(request.options)
        return model

    def UnloadModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        return models_pb2.UnloadModelResponse(released_bytes=3 << 20)

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._start(request, context)
        return server_pb2.ServerInfo(version="0.1.0", threads=2, architectures=["gpt2", "llama"])

    def _start(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        self.seconds_left.append(context.time_remaining())
        if self.failure is not None:
            context.abort(*self.failure)
        if self.failures:
            code, text, trailing = self.failures.pop(0)
            context.set_trailing_metadata(trailing)
            context.abort(code, text)

    @staticmethod
    def _model(name: str) -> models_pb2.Model:
        layer = models_pb2.MixingOperator(name="000", head_count=3, channels=[64])
        layer.state_size.growing_up_to = 7
        state = models_pb2.MODEL_STATE_READY
        return models_pb2.Model(name=name, state=state, weight_bytes=5 << 20, layers=[layer])


def operator_answer(
    values: list[float],
    batch: list[int],
    length: int,
    options: measures_pb2.MeasureOptions | None = None,
    certain: list[int] | None = None,
) -> list[Any]:
    """The answer to some dense operators, one measure, in pieces of four values and two floors."""
    import numpy as np

    header = operators_pb2.OperatorsHeader(
        batch_shape=batch, length=length, measure_names=["tolerance:0.001"], options=options
    )
    data = np.array(values, "<f4")
    pieces = [
        operators_pb2.OperatorsSlice(
            first_element=first,
            values=data[first : first + 4].tobytes(),
            certain=bytes((certain or [])[first : first + 4]),
        )
        for first in range(0, data.size, 4)
    ]
    floors = [1e-6 * i for i in range(int(np.prod(batch)))]
    summaries = [
        operators_pb2.OperatorsSummary(noise_floors=floors[first : first + 2])
        for first in range(0, len(floors), 2)
    ]
    summaries[-1].MergeFrom(
        operators_pb2.OperatorsSummary(
            routes=["inertia_tree"], seconds=0.5, last=True, below_noise_floor=[1]
        )
    )
    return [
        operators_pb2.ProfileOperatorsResponse(header=header),
        *(operators_pb2.ProfileOperatorsResponse(ess=piece) for piece in pieces),
        *(operators_pb2.ProfileOperatorsResponse(summary=summary) for summary in summaries),
    ]
