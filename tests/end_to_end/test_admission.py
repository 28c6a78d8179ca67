"""Who waits, who goes first, who is refused, and what a refusal says."""

import threading

import grpc
import numpy as np
import pytest

from ess_client import Client
from ess_client._proto.ess.v1 import measures_pb2, profiler_pb2, profiler_pb2_grpc
from ess_client.errors import (
    DeadlineExceeded,
    EssError,
    InvalidArgument,
    ResourceExhausted,
)
from tests.end_to_end import tiny_models
from tests.end_to_end.server_process import ServerProcess, wait_for

LARGE = {"token_ids": [[5] * 900] * 8, "measures": ["tolerance:1e-3", "head_relative:1e-2"]}
SHORT = {"token_ids": [[5] * 300], "measures": ["tolerance:1e-3"]}  # Too long for one thread.


@pytest.fixture
def root(tmp_path):
    tiny_models.make_large_llama(tmp_path / "slow")
    tiny_models.make_llama(tmp_path / "tiny")
    return tmp_path


def serve(root, config=""):
    path = root / "server.textproto"
    path.write_text(config)
    return ServerProcess(f"--config={path}", f"--model_root={root}", "--preload=slow,tiny")


# An SVD at every position: ten seconds, of less than 500 tokens.
HEAVY = {"token_ids": [[5] * 490], "measures": ["singular_values:2"], "heads": "0-1"}


class Held:
    """A large profile that occupies the server until it is left."""

    def __init__(self, server, work=LARGE):
        self.server = server
        self.work = work
        self.client = Client(server.address, client_id="holder")
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        with pytest.raises((EssError, ValueError)):  # Closed long before it is done.
            self.client.profile("slow", **self.work)

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.server.metric("ess_queue_wait_seconds_count", model="slow") == 1)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.thread.join()


def waiting(server, priority="normal", model="slow"):
    return server.metric("ess_queue_requests", model=model, priority=priority)


class Queued:
    """Profiles that wait, each in its own thread; they write their names as they are answered."""

    def __init__(self, server):
        self.server = server
        self.threads = []
        self.order = []

    def add(self, name, caller, priority="normal"):
        before = waiting(self.server, priority)

        def run():
            with Client(self.server.address, client_id=caller) as client:
                client.profile("slow", **SHORT, priority=priority)
                self.order.append(name)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        wait_for(lambda: waiting(self.server, priority) == before + 1)

    def finish(self):
        for thread in self.threads:
            thread.join()
        return "".join(self.order)


def test_a_caller_with_one_request_does_not_wait_for_all_of_anothers(root):
    with serve(root) as server:
        queued = Queued(server)
        with Held(server):
            for name in "abcd":
                queued.add(name, "alice")
            queued.add("X", "bob")
        assert queued.finish().index("X") <= 1


def test_low_priority_waits_for_normal(root):
    with serve(root) as server:
        queued = Queued(server)
        with Held(server):
            queued.add("L", "alice", "low")
            queued.add("n", "bob")
            queued.add("n", "bob")
        assert queued.finish() == "nnL"


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(root):
    with serve(root, "max_queued_profiles: 1") as server:
        queued = Queued(server)
        with Held(server), Client(server.address, client_id="alice", retries=0) as client:
            queued.add("a", "alice")
            with pytest.raises(ResourceExhausted, match="limit is 1 .max_queued_profiles") as error:
                client.profile("slow", **SHORT)
            assert error.value.retry_after > 0
        queued.finish()


def test_a_full_queue_makes_room_for_a_caller_who_has_less_of_it(root):
    with serve(root, "max_queued_profiles: 3") as server:
        refused = threading.Event()

        def greedy():
            with Client(server.address, client_id="alice", retries=0) as client:
                try:
                    client.profile("slow", **SHORT)
                except ResourceExhausted as error:
                    assert "most of them this caller's" in error.message
                    refused.set()

        with Held(server):
            threads = [threading.Thread(target=greedy) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_for(lambda: waiting(server) == 3)
            modest = threading.Thread(
                target=lambda: Client(server.address, client_id="bob").profile("slow", **SHORT)
            )
            modest.start()
            assert refused.wait(30)
        for thread in (*threads, modest):
            thread.join()
        reason = {"model": "slow", "reason": "caller_limit"}
        assert server.metric("ess_requests_shed_total", **reason) == 1


def test_tokens_that_wait_are_limited_too(root):
    with serve(root, "max_queued_tokens: 500") as server:
        queued = Queued(server)
        with Held(server, HEAVY), Client(server.address, retries=0) as client:
            queued.add("a", "alice")
            with pytest.raises(ResourceExhausted, match="300 tokens are asked for and 300 wait"):
                client.profile("slow", **SHORT)
            with pytest.raises(
                InvalidArgument, match="600 tokens in one request; the limit is 500"
            ):
                client.profile("slow", token_ids=[[1] * 600])
        queued.finish()


def test_a_deadline_in_the_queue_ends_the_call_and_frees_its_place(root):
    config = "max_queued_profiles: 1"
    with serve(root, config) as server, Held(server), Client(server.address, retries=0) as client:
        for _ in range(3):  # Each would be refused if the one before it kept its place.
            with pytest.raises(DeadlineExceeded):
                client.profile("slow", **SHORT, timeout=0.3)
            wait_for(lambda: waiting(server) == 0)


def test_small_requests_are_answered_while_a_large_one_runs(root):
    with serve(root) as server, Client(server.address) as client:
        with Held(server) as held:
            profile = client.profile("tiny", token_ids=[[1, 2, 3, 4]])
            assert held.thread.is_alive()
        assert profile["000"].sizes["position"] == 4


def test_a_prompt_gives_the_same_bits_alone_beside_others_and_in_a_batch(root):
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 300, length).tolist() for length in (1, 2, 3, 7, 31, 32, 200, 400)]
    with serve(root) as server, Client(server.address) as client:
        batch = client.profile("tiny", token_ids=prompts, measures=["tolerance:1e-3", "entropy"])
        results = [None] * len(prompts)

        def run(i):
            results[i] = client.profile(
                "tiny", token_ids=[prompts[i]], measures=["tolerance:1e-3", "entropy"]
            )

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, alone in enumerate(results):
            for name in ("000", "001", "002"):
                length = len(prompts[i])
                together = batch[name].values[:, i, :, :length]
                assert np.array_equal(alone[name].values[:, 0], together)


def unread_profile(server, seconds):
    """A call whose answers nobody reads."""
    channel = grpc.insecure_channel(server.address)
    request = profiler_pb2.ProfileRequest(
        model="slow",
        prompts=[
            profiler_pb2.Prompt(id=str(i), token_ids=profiler_pb2.TokenIds(ids=[5] * 400))
            for i in range(16)
        ],
        measures=[measures_pb2.Measure(tolerance=10.0**-k) for k in range(1, 6)],
    )
    call = profiler_pb2_grpc.EssProfilerStub(channel).Profile(request, timeout=seconds)
    next(call)
    return channel, call


def test_a_caller_who_does_not_read_holds_up_nobody(root):
    with serve(root) as server, Client(server.address) as client:
        channel, call = unread_profile(server, 300)
        wait_for(lambda: server.metric("ess_grpc_sent_bytes_total", rpc="Profile") > 2e6, 60)
        client.profile("slow", **SHORT, timeout=60)  # Large, too: it takes the other's slot.
        assert call.is_active()
        call.cancel()
        channel.close()


def test_a_caller_who_does_not_read_for_too_long_is_cut_off(root):
    with serve(root, "max_stall_seconds: 0.5") as server:
        channel, call = unread_profile(server, 300)
        wait_for(
            lambda: server.metric(
                "ess_requests_total", model="slow", rpc="Profile", code="ABORTED"
            ),
            60,
        )
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:
                pass
        # The stream is reset: a status would wait behind what nobody reads.
        assert error.value.code() is grpc.StatusCode.CANCELLED
        channel.close()
