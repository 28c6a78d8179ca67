"""The table of roles, walked over the methods that a server really has: each is called by a caller
with no token, with a wrong one, with one that is too weak, and with the right one."""

import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.end_to_end import tiny_models
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.tokens import AccessFile, bearer

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "server" / "rpc" / "method_roles.cc").read_text()
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
ROLES = ["viewer", "user", "admin"]
REFUSALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def table():
    """(service, method) -> least role, None for open ones, from the table of the server."""
    services = dict(re.findall(r'string_view (k\w+) = "([\w.]+)";', SOURCE))
    rows = re.findall(r'\{(k\w+), "(\w+)", (?:Role::k(\w+)|std::nullopt)\}', SOURCE)
    return {(services[name], method): role.lower() or None for name, method, role in rows}


TABLE = table()


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    return AccessFile(
        tmp_path_factory.mktemp("access") / "access", **{role: role for role in ROLES}
    )


@pytest.fixture(scope="module")
def server(access, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_models.make_llama(root / "tiny-llama")
    tiny_models.make_gpt2(root / "tiny-gpt2")
    with ServerProcess(access.flag, f"--model_root={root}") as process:
        yield process


@pytest.fixture(scope="module")
def methods(server):
    """(service, method) -> its descriptor, of everything that the server serves."""
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]  # gRPC's own has no description.
        services = [
            health if name == health.full_name else pool.FindServiceByName(name)
            for name in database.get_services()
        ]
        return {(s.full_name, method.name): method for s in services for method in s.methods}


def call(server, name, method, metadata=(), request=b""):
    """The status of a call with the bytes of `request`."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_"
    kind += "stream" if method.server_streaming else "unary"
    with grpc.insecure_channel(server.address) as channel:
        stub = getattr(channel, kind)("/" + "/".join(name))
        argument = iter([request]) if method.client_streaming else request
        try:
            answer = stub(argument, timeout=60, metadata=metadata)
            if method.server_streaming:
                next(iter(answer), None)
                answer.cancel()
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def weaker(role):
    return ROLES[: ROLES.index(role)]


def test_the_table_is_read():
    assert len(TABLE) > 30
    assert set(TABLE.values()) == {*ROLES, None}
    assert SOURCE.count("{k") == len(TABLE)


def test_every_method_that_is_served_has_a_row(methods):
    assert {("ess.v1.EssProfiler", "Profile"), ("grpc.health.v1.Health", "Check")} <= set(methods)
    assert set(methods) <= set(TABLE)


def test_names_of_methods_with_a_role_are_unique():
    names = [method for (_, method), role in TABLE.items() if role]
    assert len(set(names)) == len(names)


def test_the_document_shows_the_table():
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+) \| (.+?) \|$", DOCUMENT, re.MULTILINE)
    shown = {
        (service, method): None if role == "open" else role
        for service, role, names in rows
        for method in re.findall(r"`(\w+)`", names)
    }
    assert shown == TABLE


def test_a_caller_without_a_good_token_is_unauthenticated_everywhere(server, methods, access):
    good = access.tokens["admin"]
    wrong = {
        "none": [],
        "unknown": bearer("ess_" + "A" * 43),
        "changed": bearer(good[:-1] + ("A" if good[-1] != "A" else "B")),
        "cut": bearer(good[:-1]),
        "other scheme": [("authorization", f"Basic {good}")],
        "no scheme": [("authorization", good)],
        "empty": bearer(""),
        "twice": bearer(good) + bearer(good),
        "huge": bearer("A" * 4000),
    }
    for name, method in methods.items():
        for kind, metadata in wrong.items():
            code, details = call(server, name, method, metadata)
            if TABLE[name] is None:
                assert code not in REFUSALS, (name, kind)
            else:
                assert code == grpc.StatusCode.UNAUTHENTICATED, (name, kind, details)
                assert "authorization" in details


def test_a_caller_with_too_weak_a_role_is_denied_everywhere(server, methods, access):
    denied = 0
    for name, method in methods.items():
        for role in weaker(TABLE[name]) if TABLE[name] else []:
            code, details = call(server, name, method, bearer(access.tokens[role]))
            assert code == grpc.StatusCode.PERMISSION_DENIED, (name, role, details)
            assert f"needs the role {TABLE[name]}" in details
            denied += 1
    assert denied > 10


def test_a_caller_with_the_role_or_a_stronger_one_is_admitted_everywhere(server, methods, access):
    for name, method in methods.items():
        for role in [r for r in ROLES if TABLE[name] and r not in weaker(TABLE[name])]:
            code, details = call(server, name, method, bearer(access.tokens[role]))
            assert code not in REFUSALS, (name, role, details)


def string_field(text):
    """A message whose field 1 is this string: the model, or the job, of every request that names
    one."""
    return b"\x0a" + bytes([len(text)]) + text.encode()


def test_a_refusal_does_not_say_whether_the_thing_exists(server, methods, access):
    for name, method in methods.items():
        if TABLE[name] is None:
            continue
        for metadata in [[], *(bearer(access.tokens[role]) for role in weaker(TABLE[name]))]:
            answers = {
                call(server, name, method, metadata, string_field(text))
                for text in ("tiny-llama", "no-such-thing")
            }
            assert len(answers) == 1, name


def test_a_refused_call_does_no_work(server, access):
    """A load that is refused leaves the model cold."""
    with grpc.insecure_channel(server.address) as channel:
        load = channel.unary_unary("/ess.v1.EssProfiler/LoadModel")
        with pytest.raises(grpc.RpcError):
            load(string_field("tiny-gpt2"), metadata=bearer(access.tokens["user"]))
        assert server.metric("ess_model_loads_total", model="tiny-gpt2", result="OK") == 0
        load(string_field("tiny-gpt2"), metadata=bearer(access.tokens["admin"]), timeout=120)
        assert server.metric("ess_model_loads_total", model="tiny-gpt2", result="OK") == 1
