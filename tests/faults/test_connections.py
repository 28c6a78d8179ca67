"""Connections that are opened and dropped, in each stage of their life: the server keeps serving,
and descriptors, threads and memory return.

ESS_CONNECTIONS=10000 for the long form (`make fuzz`).
"""

import os
import socket
import struct

import psutil
import pytest

from ess_client import Client
from tests.end_to_end.server_process import ServerProcess, wait_for

CONNECTIONS = int(os.environ.get("ESS_CONNECTIONS", "1000"))
AT_ONCE = 100
# Between the halves of a run: what the largest backlog of one of them took, and no less.
MAX_GROWTH_BYTES = max(24 << 20, CONNECTIONS * (16 << 10))
MAX_MORE_THREADS = 32  # gRPC keeps some of those that a burst made it start.
GOOD = [[1, 2, 3, 4, 5]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + struct.pack(">I", 0)
# The headers of a call, as HPACK literals without indexing.
PATH = b"/ess.v1.EssProfiler/ListModels"


def header(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers_frame() -> bytes:
    block = (
        header(b":method", b"POST")
        + header(b":scheme", b"http")
        + header(b":path", PATH)
        + header(b":authority", b"localhost")
        + header(b"te", b"trailers")
        + header(b"content-type", b"application/grpc")
    )
    end_headers = b"\x04"
    return struct.pack(">I", len(block))[1:] + b"\x01" + end_headers + struct.pack(">I", 1) + block


def data_frame(announced: int, sent: bytes) -> bytes:
    """The beginning of a gRPC message of `announced` bytes."""
    body = b"\x00" + struct.pack(">I", announced) + sent
    return struct.pack(">I", len(body))[1:] + b"\x00\x00" + struct.pack(">I", 1) + body


# What a connection has said when it is dropped.
STAGES = {
    "nothing": b"",
    "no HTTP/2": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\xff" * 100,
    "half a preface": PREFACE[:10],
    "a preface and settings": PREFACE + SETTINGS,
    "a call without its message": PREFACE + SETTINGS + headers_frame(),
    "a call with a part of its message": PREFACE
    + SETTINGS
    + headers_frame()
    + data_frame(1 << 20, b"x" * 1000),
    "a message that claims 4 GiB": PREFACE
    + SETTINGS
    + headers_frame()
    + data_frame((1 << 32) - 1, b"x" * 100),
}


def open_and_drop(address: str, said: bytes, count: int, abrupt: bool) -> None:
    host, port = address.rsplit(":", 1)
    for first in range(0, count, AT_ONCE):
        sockets = [
            socket.create_connection((host, int(port)), timeout=30)
            for _ in range(min(AT_ONCE, count - first))
        ]
        for connection in sockets:
            connection.sendall(said)
        for connection in sockets:
            if abrupt:  # A reset instead of a farewell.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()


@pytest.fixture
def own_server(server_config):
    with ServerProcess(f"--config={server_config}") as process:
        yield process


@pytest.mark.parametrize("abrupt", [False, True], ids=["closed", "reset"])
def test_connections_that_are_dropped_leave_nothing_behind(own_server, abrupt):
    process = psutil.Process(own_server.process.pid)
    with Client(own_server.address, timeout=120) as client:
        before = client.profile("tiny-llama", token_ids=GOOD).ess.values
        descriptors, threads = process.num_fds(), process.num_threads()
        memory = []
        for _ in range(2):  # The first half takes what the allocator then keeps.
            for said in STAGES.values():
                open_and_drop(own_server.address, said, CONNECTIONS // 2 // len(STAGES), abrupt)
            wait_for(lambda: process.num_fds() <= descriptors)
            memory.append(process.memory_info().rss)

        growth = memory[1] - memory[0]
        print(f"in the second half resident memory grew by {growth >> 10} KiB")
        assert growth < MAX_GROWTH_BYTES
        assert process.num_threads() <= threads + MAX_MORE_THREADS
        after = client.profile("tiny-llama", token_ids=GOOD).ess.values
        assert (before == after).all()
        own_server.wait_until_idle()


def test_connections_to_the_metrics_port_leave_nothing_behind(own_server):
    process = psutil.Process(own_server.process.pid)
    own_server.metrics()
    descriptors = process.num_fds()
    for said in (b"", b"GET /metrics HTTP/1.1\r\n", b"\xff" * 5000):
        open_and_drop(own_server.metrics_address, said, CONNECTIONS // 10, abrupt=True)

    wait_for(lambda: process.num_fds() <= descriptors + 2)
    assert own_server.metrics()
