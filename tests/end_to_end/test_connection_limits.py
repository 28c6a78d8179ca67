"""What one caller, and all together, may take of connections, calls and messages."""

import select
import socket
import threading

import grpc

from ess_client._proto.ess.v1 import profiler_pb2, server_pb2

from .raw_calls import code_of, info, stub_of
from .server_process import SERVER, ServerProcess, wait_for


def info_anew(address):
    """On a connection of its own."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        info(channel)


def is_open(connection):
    """Whether the other side has not closed it; what it has said, its settings, is read."""
    while select.select([connection], [], [], 0)[0]:
        try:
            if not connection.recv(65536):
                return False
        except ConnectionError:
            return False
    return True


class TestLimits:
    def serve(self, tmp_path, text):
        config = tmp_path / "server.textproto"
        config.write_text(text)
        return ServerProcess(f"--config={config}")

    def test_headers_and_messages_have_a_limit(self, tmp_path):
        with (
            self.serve(tmp_path, "max_header_bytes: 4096 max_message_bytes: 100000") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            assert info(channel).max_message_bytes == 100000
            request = profiler_pb2.ProfileRequest(model="x" * 200000)
            code = code_of(lambda: list(stub_of(channel).Profile(request, timeout=20)))
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            info(channel, [("x", "y" * 2000)])
            code = code_of(info, channel, [("x", "y" * 8000)])
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_more_calls_than_the_limit_of_a_connection_wait(self, tmp_path):
        with (
            self.serve(tmp_path, "max_concurrent_streams: 2") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            hold = threading.Event()

            def requests():
                hold.wait(60)
                yield from ()

            held = [stub_of(channel).ProfileOperators(requests(), timeout=60) for _ in range(2)]
            wait_for(lambda: server.metric("ess_grpc_started_total", rpc="ProfileOperators") == 2)
            waiting = stub_of(channel).GetServerInfo.future(
                server_pb2.GetServerInfoRequest(), timeout=60
            )
            with grpc.insecure_channel(
                server.address, [("grpc.use_local_subchannel_pool", 1)]
            ) as another:
                info(another)
            assert not waiting.done()
            hold.set()
            assert waiting.result().version
            assert all(code_of(list, call) != grpc.StatusCode.OK for call in held)

    def test_more_connections_than_the_limit_are_closed_and_leave_no_trace(self, tmp_path):
        few_descriptors = tmp_path / "few_descriptors"
        few_descriptors.write_text(f'#!/bin/sh\nulimit -n 250\nexec {SERVER} "$@"\n')
        few_descriptors.chmod(0o755)
        config = tmp_path / "server.textproto"
        config.write_text("max_connections: 100")
        for binary, least in ((SERVER, 100), (few_descriptors, 20)):
            with (
                ServerProcess(f"--config={config}", binary=binary) as server,
                grpc.insecure_channel(server.address) as channel,
            ):
                info(channel)
                host, port = server.address.split(":")
                sockets = [socket.create_connection((host, int(port)), 20) for _ in range(500)]
                wait_for(lambda s=server: "connections were refused" in s.log())
                wait_for(lambda s=sockets, n=least: n < sum(map(is_open, s)) < 300)
                info(channel)
                for connection in sockets:
                    connection.close()
                wait_for(lambda a=server.address: code_of(info_anew, a) == grpc.StatusCode.OK)

    def test_an_idle_connection_is_closed_and_comes_back_with_the_next_call(self, tmp_path):
        with (
            self.serve(tmp_path, "max_connection_idle_seconds: 1") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            states = []
            channel.subscribe(states.append)
            info(channel)
            wait_for(
                lambda: (
                    states[-1:] == [grpc.ChannelConnectivity.IDLE]
                    and grpc.ChannelConnectivity.READY in states
                )
            )
            info(channel)
