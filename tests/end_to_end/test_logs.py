"""The log: one line per event, and a call to be found in it."""

import json
import re

import grpc
import pytest

from ess_client import Client, EssError, NotFound
from ess_client._proto.ess.v1 import models_pb2, profiler_pb2, profiler_pb2_grpc

from .server_process import ServerProcess

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def json_server(model_root):
    with ServerProcess(f"--model_root={model_root}", "--log_format=json") as process:
        yield process


def events(server):
    server.wait_until_idle()
    return [json.loads(line) for line in server.log().splitlines()]


def requests(server):
    return {event["id"]: event for event in events(server) if event["message"] == "request"}


def get_model(address, *metadata):
    """Calls with this metadata; returns the id of the request."""
    with grpc.insecure_channel(address) as channel:
        _, call = profiler_pb2_grpc.EssProfilerStub(channel).GetModel.with_call(
            models_pb2.GetModelRequest(name="tiny-gpt2"), metadata=metadata, timeout=30
        )
        return dict(call.trailing_metadata())["ess-request-id"]


def test_every_line_is_an_object_with_time_level_and_message(json_server):
    with Client(json_server.address) as client:
        client.load_model("tiny-gpt2")
    lines = events(json_server)
    assert {"request"} < {line["message"].split()[0] for line in lines}  # And others.
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line["time"])
        assert line["level"] in ("info", "warning", "error")


def test_the_line_of_a_call_says_who_called_what_and_how_it_went(json_server):
    with Client(json_server.address, client_id="alice") as client:
        client.profile("tiny-gpt2", token_ids=[[1, 2, 3], [4, 5]])
    lines = requests(json_server).values()
    (line,) = [line for line in lines if line["caller"] == "client:alice"]
    assert line["rpc"] == "Profile"
    assert line["model"] == "tiny-gpt2"
    assert line["code"] == "OK"
    assert (line["prompts"], line["positions"]) == (2, 5)
    assert set(line["stages"]) >= {"queue", "forward", "ess"}
    assert 0 <= line["stages"]["queue"] <= line["seconds"]
    assert "error" not in line


def test_an_error_carries_the_id_of_its_line(json_server):
    with Client(json_server.address) as client, pytest.raises(NotFound) as error:
        client.profile('x"\n\\', token_ids=[[1]])
    line = requests(json_server)[error.value.request_id]
    assert line["code"] == "NOT_FOUND"
    assert line["error"] == error.value.message
    assert line["caller"].startswith("ipv4:127.0.0.1")


def test_an_error_without_a_server_has_no_id():
    with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(EssError) as error:
        client.models()
    assert error.value.request_id is None


def test_the_answer_of_a_stream_and_its_status_name_the_same_request(json_server):
    with grpc.insecure_channel(json_server.address) as channel:
        prompt = profiler_pb2.Prompt(id="a", token_ids=profiler_pb2.TokenIds(ids=[1, 2]))
        request = profiler_pb2.ProfileRequest(model="tiny-gpt2", prompts=[prompt])
        call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(request, timeout=60)
        header = next(call).header
        for _ in call:
            pass
        assert dict(call.trailing_metadata())["ess-request-id"] == header.request_id


def test_a_trace_context_and_the_callers_id_are_in_the_line(json_server):
    request_id = get_model(
        json_server.address, ("traceparent", TRACE), ("x-request-id", "job-17/3")
    )
    line = requests(json_server)[request_id]
    assert line["traceparent"] == TRACE
    assert line["client_request_id"] == "job-17/3"


def test_what_is_no_trace_context_is_left_out(json_server):
    request_id = get_model(
        json_server.address, ("traceparent", TRACE[:-1] + "z"), ("x-request-id", "a b")
    )
    line = requests(json_server)[request_id]
    assert not {"traceparent", "client_request_id"} & set(line)


def test_metadata_that_may_hold_a_secret_is_not_logged(json_server):
    secret = "Bearer-5f2a91"
    get_model(json_server.address, ("authorization", secret), ("cookie", secret))
    json_server.wait_until_idle()
    assert secret not in json_server.log()


def test_as_text_a_line_has_the_same_fields(server):
    request_id = get_model(server.address, ("traceparent", TRACE), ("ess-client-id", "bob = 1"))
    server.wait_until_idle()
    (line,) = [line for line in server.log().splitlines() if f"id={request_id}" in line]
    assert "info request id=" in line
    assert 'rpc=GetModel model=tiny-gpt2 caller="client:bob = 1"' in line
    assert f"traceparent={TRACE} code=OK seconds=" in line


def test_an_error_stays_one_line_of_text(server):
    with Client(server.address) as client, pytest.raises(NotFound) as error:
        client.profile('x"\nforged', token_ids=[[1]])
    server.wait_until_idle()
    (line,) = [line for line in server.log().splitlines() if error.value.request_id in line]
    assert r"\nforged" in line
