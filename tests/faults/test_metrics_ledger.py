"""The metrics after a random mix of good, bad, refused and cancelled calls say what was sent."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from ess_client import Client, DenseOperator
from ess_client._operator_stream import operator_requests
from ess_client._proto.ess.v1 import (
    jobs_pb2,
    measures_pb2,
    models_pb2,
    profiler_pb2,
    profiler_pb2_grpc,
    server_pb2,
)
from tests.end_to_end.server_process import wait_for
from tests.tidy.test_metrics_document import OTHERS, catalogue

from .fault_server import FaultServer, gauges_that_are_not_zero, total
from .ledger import Ledger
from .small_server import make_models

MODELS = ("tiny-llama", "tiny-falcon-h1")
PLACES = 4
CONFIG = f"threads: 2 max_running_profiles: 1 max_queued_profiles: {PLACES} max_prompts: 16"
CALLS = 400
ROUNDS = 6
AT_ONCE = 6
SEED = 11
OF_THE_EXPOSITION_LIBRARY = "exposer_"
# Of the labels whose values do not come from the models.
LABEL_VALUES = {
    "reason": {"queue_requests"},
    "stage": {
        *("receiving", "queued", "running", "sending"),  # A cancel.
        *("queue", "receive", "load", "tokenize", "forward", "ess", "send"),  # A time.
    },
    "priority": {"normal", "low"},
    "code": {
        *("OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"),
        "FAILED_PRECONDITION",
    },
    "rpc": {
        *("Profile", "ProfileOperators", "EstimateProfile", "GetJob"),
        *("ListModels", "GetModel", "LoadModel", "UnloadModel", "GetServerInfo"),
    },
    "model": {*MODELS, ""},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("ledger")
    make_models(root)
    (root / "server.textproto").write_text(CONFIG)
    with FaultServer(f"--config={root / 'server.textproto'}", f"--model_root={root}") as process:
        yield process


class Traffic:
    """Sends calls and enters each into the ledger as the server must count it."""

    def __init__(self, server, channel):
        self.server = server
        self.stub = profiler_pb2_grpc.EssProfilerStub(channel)
        self.ledger = Ledger()
        self.layers = {}

    def load_models(self):
        with Client(self.server.address, timeout=60) as client:
            for name in MODELS:
                client.load_model(name)
                self.ledger.call("LoadModel", name, "OK")
                self.ledger.add("ess_model_loads_total", model=name, result="OK")
                info = client.model(name)
                self.ledger.call("GetModel", name, "OK")
                self.layers[name] = [layer.name for layer in info.layers]

    def expect(self, code, call):
        """Runs the call to its end."""
        try:
            call()
            assert code == "OK"
        except grpc.RpcError as error:
            assert error.code().name == code, error.details()

    def send(self, number):
        """The call of this number, of any kind."""
        rng = random.Random(SEED * 1000 + number)
        kinds = [self.good_profile] * 4 + [self.good_operators] * 2
        kinds += [self.unary, self.unary, self.unknown_model, self.no_prompts, self.bad_token]
        kinds += [self.bad_stream, self.without_jobs]
        rng.choice(kinds)(rng)

    def good_profile(self, rng):
        model = rng.choice(MODELS)
        lengths = [rng.randint(2, 60) for _ in range(rng.randint(1, 3))]
        self.expect("OK", lambda: list(self.profile(model, lengths)))
        self.ran(model, lengths)

    def profile(self, model, lengths, timeout=120):
        prompts = [
            profiler_pb2.Prompt(id=f"p{i}", token_ids={"ids": [5] * length})
            for i, length in enumerate(lengths)
        ]
        return self.stub.Profile(
            profiler_pb2.ProfileRequest(model=model, prompts=prompts), timeout=timeout
        )

    def ran(self, model, lengths):
        self.ledger.call("Profile", model, "OK")
        self.ledger.turn(model)
        self.ledger.profile(model, self.layers[model], lengths)

    def good_operators(self, rng):
        size = rng.randint(2, 30)
        operator = DenseOperator(np.tril(np.ones((rng.randint(1, 5), size, size))))
        messages = list(operator_requests(operator, [], measures_pb2.MeasureOptions(), None))
        self.expect("OK", lambda: list(self.stub.ProfileOperators(iter(messages), timeout=120)))
        self.ledger.call("ProfileOperators", "", "OK")
        self.ledger.turn("")

    def unary(self, rng):
        model = rng.choice(MODELS)
        rpc, named, request = rng.choice(
            [
                ("ListModels", "", models_pb2.ListModelsRequest()),
                ("GetServerInfo", "", server_pb2.GetServerInfoRequest()),
                ("GetModel", model, models_pb2.GetModelRequest(name=model)),
                (
                    "EstimateProfile",
                    model,
                    profiler_pb2.ProfileRequest(
                        model=model, prompts=[profiler_pb2.Prompt(token_ids={"ids": [1, 2]})]
                    ),
                ),
            ]
        )
        self.expect("OK", lambda: getattr(self.stub, rpc)(request, timeout=60))
        self.ledger.call(rpc, named, "OK")

    def unknown_model(self, rng):
        self.expect("NOT_FOUND", lambda: list(self.profile(f"model-{rng.random()}", [3])))
        self.ledger.call("Profile", "", "NOT_FOUND")

    def no_prompts(self, rng):
        model = rng.choice(MODELS)
        self.expect("INVALID_ARGUMENT", lambda: list(self.profile(model, [])))
        self.ledger.call("Profile", model, "INVALID_ARGUMENT")

    def bad_token(self, rng):
        """Refused when its turn has come."""
        model = rng.choice(MODELS)
        prompt = profiler_pb2.Prompt(token_ids={"ids": [10**9]})
        request = profiler_pb2.ProfileRequest(model=model, prompts=[prompt])
        self.expect("INVALID_ARGUMENT", lambda: list(self.stub.Profile(request, timeout=60)))
        self.ledger.call("Profile", model, "INVALID_ARGUMENT")
        self.ledger.turn(model)

    def bad_stream(self, rng):
        self.expect(
            "INVALID_ARGUMENT", lambda: list(self.stub.ProfileOperators(iter([]), timeout=60))
        )
        self.ledger.call("ProfileOperators", "", "INVALID_ARGUMENT")

    def without_jobs(self, rng):
        self.expect(
            "FAILED_PRECONDITION", lambda: self.stub.GetJob(jobs_pb2.GetJobRequest(), timeout=60)
        )
        self.ledger.call("GetJob", "", "FAILED_PRECONDITION")

    def crowd(self, rng):
        """One call runs and all places are taken: some are refused, some leave, the rest run."""
        lengths = [100] * 12  # Too many tokens for one thread: it waits for the only slot.
        model = rng.choice(MODELS)
        leaving = rng.randint(1, PLACES - 1)
        with self.server.holding("send"):
            running = self.profile(model, lengths)
            self.wait_for_gauges(1, 0)
            waiting = []
            for place in range(PLACES):
                waiting.append(self.profile(model, lengths))
                self.wait_for_gauges(place + 2, place + 1)
            for _ in range(rng.randint(1, 5)):
                self.expect("RESOURCE_EXHAUSTED", lambda: list(self.profile(model, lengths)))
                self.ledger.call("Profile", model, "RESOURCE_EXHAUSTED")
                self.ledger.add("ess_requests_shed_total", model=model, reason="queue_requests")
            for call in waiting[:leaving]:
                call.cancel()
                self.cancelled("Profile", model, "queued")
            self.wait_for_gauges(PLACES - leaving + 1, PLACES - leaving)
            if stops := rng.random() < 0.5:
                seen = self.cancels("running")
                running.cancel()
                wait_for(lambda: self.cancels("running") == seen + 1)
                self.cancelled("Profile", model, "running")
                self.ledger.turn(model)
                self.ledger.add("ess_cancel_latency_seconds_count", model=model)
        for call in waiting[leaving:] + ([] if stops else [running]):
            self.expect("OK", lambda call=call: list(call))
            self.ran(model, lengths)

    def left_uploads(self, rng):
        """Streams of operators that are never complete, and whose callers leave."""
        count = rng.randint(1, 6)
        hold = threading.Event()
        operator = DenseOperator(np.eye(8))
        first = list(operator_requests(operator, [], measures_pb2.MeasureOptions(), None))[:1]

        def messages():
            yield from first
            hold.wait(60)

        before = self.server.metric("ess_grpc_received_bytes_total", rpc="ProfileOperators")
        calls = [self.stub.ProfileOperators(messages(), timeout=60) for _ in range(count)]
        size = first[0].ByteSize() * count
        wait_for(
            lambda: (
                self.server.metric("ess_grpc_received_bytes_total", rpc="ProfileOperators")
                == before + size
            )
        )
        for call in calls:
            call.cancel()
            self.cancelled("ProfileOperators", "", "receiving")
        hold.set()

    def cancelled(self, rpc, model, stage):
        self.ledger.call(rpc, model, "CANCELLED")
        self.ledger.add("ess_requests_cancelled_total", model=model, stage=stage)

    def cancels(self, stage):
        return total(self.server.metrics(), "ess_requests_cancelled_total", stage=stage)

    def wait_for_gauges(self, in_flight, queued):
        def reached():
            samples = self.server.metrics()
            return (
                total(samples, "ess_requests_in_flight") == in_flight
                and total(samples, "ess_queue_requests") == queued
            )

        wait_for(reached)


def test_the_metrics_are_what_the_ledger_says(server):
    with (
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor(AT_ONCE) as workers,
    ):
        traffic = Traffic(server, channel)
        traffic.load_models()
        rng = random.Random(SEED)
        for first in range(0, CALLS, CALLS // ROUNDS):
            list(workers.map(traffic.send, range(first, first + CALLS // ROUNDS)))
            server.wait_until_idle()
            traffic.crowd(rng)
            traffic.left_uploads(rng)
            server.wait_until_idle()

    samples = server.metrics()
    assert traffic.ledger.differences(samples) == []
    assert not gauges_that_are_not_zero(samples)


def samples_of_the_list():
    """Sample name -> its labels, but for the one of a histogram's buckets."""
    listed = {name: set() for name in OTHERS}
    for name, (kind, labels) in catalogue().items():
        parts = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        listed |= {name + part: set(labels) for part in parts}
    return listed


def test_no_series_is_exported_that_is_not_on_the_list(server):
    """After all of the above."""
    listed = samples_of_the_list()
    with Client(server.address, timeout=60) as client:
        layers = {layer.name for model in MODELS for layer in client.model(model).layers}
    allowed = {**LABEL_VALUES, "layer": layers}
    for name, pairs in server.metrics():
        if name.startswith(OF_THE_EXPOSITION_LIBRARY):
            continue
        labels = {label: value for label, value in pairs if label != "le"}
        assert set(labels) == listed[name], (name, labels)
        for label, value in labels.items():
            assert value in allowed.get(label, {value}), (name, labels)
