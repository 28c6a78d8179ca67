"""A good call of every RPC: what mutations start from, and what must answer the same bits after."""

import hashlib
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from ess_client import (
    BandedOperator,
    Convolution,
    DeltaRecurrence,
    DenseOperator,
    DiagonalPlusRankOne,
    DiagonalRecurrence,
    GeneralRecurrence,
)
from ess_client._operator_stream import operator_requests
from ess_client._proto.ess.v1 import (
    jobs_pb2,
    measures_pb2,
    models_pb2,
    operators_pb2,
    profiler_pb2,
    server_pb2,
)
from tests.end_to_end.inference import text_request, tokens_request

SERVICE = "/ess.v1.EssProfiler/"
INFERENCE = "/inference.GRPCInferenceService/"
MODELS = ("tiny-falcon-h1", "tiny-llama")


@dataclass(frozen=True)
class Call:
    """The messages of one call, of one type. `answer`: the type of what comes back."""

    method: str
    messages: tuple[Message, ...]
    answer: type[Message]
    # Whether equal calls have equal answers, but for times and ids.
    repeats: bool = True


def measures(*others):
    return [
        measures_pb2.Measure(tolerance=1e-3),
        measures_pb2.Measure(entropy={}),
        *(measures_pb2.Measure(**other) for other in others),
    ]


def profile_requests():
    text = profiler_pb2.ProfileRequest(
        model="tiny-llama",
        prompts=[
            profiler_pb2.Prompt(id="fox", text="the quick brown fox"),
            profiler_pb2.Prompt(text="jumps over the lazy dog; the dog sleeps."),
        ],
        measures=measures({"relative": 1e-3}, {"singular_values": 2}, {"frobenius_norm": {}}),
        layers={"ranges": [{"first": 0, "last": 1}]},
        heads={"ranges": [{"first": 0, "last": 3, "stride": 3}]},
        positions={"ranges": [{"first": 0, "last": 4}, {"first": 5, "last": 9, "stride": 2}]},
        add_special_tokens=True,
    )
    ids = profiler_pb2.ProfileRequest(
        model="tiny-falcon-h1",
        prompts=[
            profiler_pb2.Prompt(token_ids={"ids": [1, 2, 3, 5, 8, 13, 21]}),
            profiler_pb2.Prompt(token_ids={"ids": [34, 55, 89]}),
        ],
        measures=measures({"head_relative": 1e-2}, {"spectral_norm": {}}, {"causal": {}}),
        options={"certify": True},
        layers={"names": ["000.mamba"]},
    )
    gaussian = profiler_pb2.ProfileRequest(
        model="tiny-llama",
        gaussian={"count": 2, "length": 12, "seed": 7},
        options={"horizon": 5, "reduction": measures_pb2.REDUCTION_HEADS},
    )
    return text, ids, gaussian


def operators():
    random = np.random.default_rng(3)

    def draw(*shape):
        return random.standard_normal(shape) * 0.5

    return (
        DenseOperator(np.tril(draw(2, 8, 8))),
        DiagonalRecurrence(draw(9, 3), draw(2, 9, 3), draw(9, 3)),
        DiagonalRecurrence(draw(7, 2) + 1j * draw(7, 2), draw(7, 2), draw(7, 2)),
        DeltaRecurrence(abs(draw(6)), abs(draw(6)), draw(6, 3), draw(6, 3)),
        DiagonalPlusRankOne(
            draw(6, 3), draw(6, 3), draw(6, 3), draw(6, 3), draw(6, 3), read="before"
        ),
        GeneralRecurrence(draw(5, 2, 2), draw(5, 2), draw(5, 2)),
        Convolution(draw(10), draw(10), draw(10)),
        BandedOperator(draw(9, 3), draw(9, 1)),
    )


def inference_requests():
    """Raw tokens, raw texts and typed tokens, with every parameter."""
    tokens = tokens_request(
        [[1, 2, 3, 5, 8], [13, 21, 34, 0, 0]],
        outputs=["ESS", "LAYER", "CERTAIN", "TOKENS_USED"],
        lengths=[5, 3],
        measures="tolerance:1e-3,entropy,relative:0.01",
        layers="0,1",
        heads="0-3:3",
        positions="0-4",
        certify=True,
        priority=1,
        timeout=50_000_000,
        triton_enable_empty_final_response=True,
    )
    text = text_request(
        ["the quick brown fox", "jumps over"], horizon=4, add_special_tokens=True, layers="000"
    )
    text.id = "an id"
    typed = service_pb2.ModelInferRequest(model_name="tiny-llama", model_version="1")
    tensor = typed.inputs.add(name="TOKENS", datatype="INT32", shape=[1, 4])
    tensor.contents.int_contents.extend([1, 2, 3, 4])
    return tokens, text, typed


def inference_calls() -> list[Call]:
    tokens, text, typed = inference_requests()
    calls = [
        Call(INFERENCE + "ModelInfer", (request,), service_pb2.ModelInferResponse)
        for request in (tokens, text, typed)
    ]
    calls += [
        # One request at a time: answers of several come in any order.
        Call(INFERENCE + "ModelStreamInfer", (request,), service_pb2.ModelStreamInferResponse)
        for request in (tokens, text)
    ]
    several = (tokens, typed, text)
    calls.append(
        Call(
            INFERENCE + "ModelStreamInfer",
            several,
            service_pb2.ModelStreamInferResponse,
            repeats=False,
        )
    )
    for method, fields, repeats in (
        ("ServerLive", {}, True),
        ("ServerReady", {}, True),
        ("ServerMetadata", {}, True),
        ("ModelReady", {"name": "tiny-llama", "version": "1"}, True),
        ("ModelMetadata", {"name": "tiny-llama"}, False),  # Says whether it is in memory.
        ("ModelConfig", {"name": "tiny-llama", "version": "1"}, False),
        ("ModelStatistics", {"name": "tiny-llama"}, False),
        ("RepositoryIndex", {"ready": True}, False),
        ("RepositoryModelLoad", {"model_name": "tiny-llama"}, True),
        ("RepositoryModelUnload", {"model_name": "tiny-falcon-h1"}, True),
    ):
        request = getattr(service_pb2, f"{method}Request")(**fields)
        answer = getattr(service_pb2, f"{method}Response")
        calls.append(Call(INFERENCE + method, (request,), answer, repeats))
    return calls


def submission() -> tuple[Message, ...]:
    """A job of which there is one, however often it is submitted."""
    lines = b'{"text": "the quick brown fox"}\n{"id": "ids", "token_ids": [1, 2, 3]}\n'
    specification = jobs_pb2.JobSpecification(
        model="tiny-llama",
        measures=measures({"relative": 1e-3}),
        options={"certify": True},
        layers={"ranges": [{"first": 0, "last": 1}]},
        positions={"ranges": [{"first": 0, "last": 2}]},
        idempotency_key="good",
        priority=jobs_pb2.JOB_PRIORITY_HIGH,
        labels={"a": "b"},
    )
    return (
        jobs_pb2.SubmitJobRequest(specification=specification),
        jobs_pb2.SubmitJobRequest(prompts=jobs_pb2.JobPrompts(json_lines=lines[:20])),
        jobs_pb2.SubmitJobRequest(prompts=jobs_pb2.JobPrompts(json_lines=lines[20:])),
    )


def job_calls(job_id: str) -> tuple[Call, ...]:
    """About the job of `submission`, once it has ended."""
    return (
        Call(SERVICE + "SubmitJob", submission(), jobs_pb2.Job),
        Call(SERVICE + "GetJob", (jobs_pb2.GetJobRequest(id=job_id),), jobs_pb2.Job),
        Call(SERVICE + "WatchJob", (jobs_pb2.WatchJobRequest(id=job_id),), jobs_pb2.Job),
        Call(SERVICE + "CancelJob", (jobs_pb2.CancelJobRequest(id=job_id),), jobs_pb2.Job),
        Call(
            SERVICE + "FetchJobResult",
            (jobs_pb2.FetchJobResultRequest(id=job_id, offset=8),),
            jobs_pb2.FetchJobResultResponse,
        ),
        Call(
            SERVICE + "ListJobs",
            (jobs_pb2.ListJobsRequest(page_size=2, page_token="9"),),
            jobs_pb2.ListJobsResponse,
            repeats=False,
        ),
    )


def good_calls() -> tuple[Call, ...]:
    calls = []
    for request in profile_requests():
        calls.append(Call(SERVICE + "Profile", (request,), profiler_pb2.ProfileResponse))
        calls.append(
            Call(SERVICE + "EstimateProfile", (request,), profiler_pb2.EstimateProfileResponse)
        )
    options = measures_pb2.MeasureOptions(certify=True)
    selections = (None, "0-4", "1-4:2")
    for number, operator in enumerate(operators()):
        messages = operator_requests(operator, [], options, selections[number % 3])
        calls.append(
            Call(
                SERVICE + "ProfileOperators",
                tuple(messages),
                operators_pb2.ProfileOperatorsResponse,
            )
        )
    for name in MODELS:
        load = models_pb2.LoadModelRequest(name=name, options={"pinned": False})
        calls += [
            Call(SERVICE + "LoadModel", (load,), models_pb2.Model),
            Call(SERVICE + "GetModel", (models_pb2.GetModelRequest(name=name),), models_pb2.Model),
        ]
    drawn = models_pb2.LoadModelRequest(
        name="tiny-llama",
        options={
            "alias": "drawn",
            "random_init": {"seed": 5},
            "dtype": models_pb2.WEIGHT_DTYPE_FLOAT32,
            "device": "cpu",
        },
    )
    listing = models_pb2.ListModelsRequest()
    unload = models_pb2.UnloadModelRequest(name="drawn")
    check = health_pb2.HealthCheckRequest(service="ess.v1.EssProfiler")
    calls += [
        Call(SERVICE + "LoadModel", (drawn,), models_pb2.Model),
        Call(SERVICE + "UnloadModel", (unload,), models_pb2.UnloadModelResponse),
        Call(SERVICE + "ListModels", (listing,), models_pb2.ListModelsResponse, repeats=False),
        Call(
            SERVICE + "GetServerInfo",
            (server_pb2.GetServerInfoRequest(),),
            server_pb2.ServerInfo,
        ),
        Call("/grpc.health.v1.Health/Check", (check,), health_pb2.HealthCheckResponse),
        *inference_calls(),
    ]
    return tuple(calls)


# What differs between two equal calls: ids, times, memory.
CHANGING = {
    "request_id",
    "seconds",
    "stages",
    "peak_host_bytes",
    "peak_bytes",
    "uptime_seconds",
}
# The same of the parameters of an answer of inference.
CHANGING_PARAMETERS = {"request_id", "queue_ns", "compute_ns"}


def digest(answers: list[Message]) -> str:
    """Of everything in the answers but for what differs between two equal calls."""
    total = hashlib.sha256()
    for answer in answers:
        copy = type(answer)()
        copy.CopyFrom(answer)
        forget(copy)
        total.update(copy.SerializeToString(deterministic=True))
    return total.hexdigest()


def forget(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name in CHANGING:
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            for name in CHANGING_PARAMETERS & set(value):
                del value[name]
        elif field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                forget(part)
