"""Jobs belong to who submitted them: with tokens, and through the client."""

import pytest

from ess_client import Client, NotFound, PermissionDenied, Unauthenticated

from .server_process import ServerProcess
from .tokens import AccessFile

IDS = [[1, 2, 3], [4, 5]]


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    path = tmp_path_factory.mktemp("access") / "access"
    return AccessFile(path, alice="user", bob="user", root="admin", eve="viewer")


@pytest.fixture(scope="module")
def server(model_root, access, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    with ServerProcess(
        f"--model_root={model_root}", f"--state_dir={state}", access.flag
    ) as process:
        yield process


@pytest.fixture
def connect(server, access):
    clients = []

    def as_caller(name):
        token = access.tokens[name] if name else None
        clients.append(Client(server.address, token=token, timeout=60))
        return clients[-1]

    yield as_caller
    for client in clients:
        client.close()


def test_a_caller_sees_and_touches_only_its_own_jobs(connect):
    alice, bob = connect("alice"), connect("bob")
    job = alice.submit_job("tiny-llama", token_ids=IDS, idempotency_key="k")
    job.wait()

    assert [found.id for found in alice.jobs()] == [job.id]
    assert bob.jobs() == []
    with pytest.raises(NotFound) as others:
        bob.job(job.id)
    with pytest.raises(NotFound) as nobodys:
        bob.job("0123456789abcdef")
    same = nobodys.value.message.replace("0123456789abcdef", job.id)
    assert others.value.message == same
    # The key is alice's; bob's is another.
    assert bob.submit_job("tiny-llama", token_ids=IDS, idempotency_key="k").id != job.id


def test_an_admin_sees_and_touches_all_jobs(connect):
    alice, root = connect("alice"), connect("root")
    job = alice.submit_job("tiny-llama", token_ids=IDS)

    assert job.id in [found.id for found in root.jobs()]
    assert root.job(job.id).result().prompt_ids == ["0", "1"]
    root.job(job.id).delete()
    with pytest.raises(NotFound):
        alice.job(job.id)


def test_who_may_not_submit_learns_nothing(connect):
    with pytest.raises(PermissionDenied):
        connect("eve").submit_job("absent", token_ids=IDS)
    with pytest.raises(Unauthenticated):
        connect(None).job("0123456789abcdef")


def test_the_client_gets_the_profile_of_a_job(connect):
    alice = connect("alice")

    profile = alice.submit_job("tiny-llama", token_ids=IDS).result()

    direct = alice.profile("tiny-llama", token_ids=IDS)
    assert profile.layer_names == direct.layer_names
    assert profile.ess.equals(direct.ess)
