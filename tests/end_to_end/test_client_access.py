"""TLS, certificates and tokens, from the side of the Python client and the command `ess`."""

import asyncio
import json
import os
import subprocess

import pytest

import ess_client
from ess_client import AsyncClient, Client

from .certificates import Authority, tls_flags
from .server_process import ROOT, ServerProcess
from .tokens import AccessFile

PROMPTS = {"token_ids": [[1, 2, 3, 4, 5]]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    return AccessFile(
        tmp_path_factory.mktemp("access") / "access", alice="user", victor="viewer", root="admin"
    )


@pytest.fixture(scope="module")
def locked(authority, access, model_root):
    """A server with TLS that knows its callers by their tokens."""
    flags = [f"--model_root={model_root}", access.flag, *tls_flags(authority.issue_server())]
    with ServerProcess(*flags) as server:
        yield server


def test_a_token_over_tls_opens_what_its_role_may(locked, authority, access):
    def client(name):
        return Client(locked.address, ca=authority.certificate, token=access.tokens[name])

    with client("root") as admin, client("alice") as user, client("victor") as viewer:
        assert admin.load_model("tiny-llama").state == "ready"
        assert user.profile("tiny-llama", **PROMPTS).layers
        assert viewer.models()
        with pytest.raises(ess_client.PermissionDenied):
            viewer.profile("tiny-llama", **PROMPTS)
        with pytest.raises(ess_client.PermissionDenied):
            user.unload_model("tiny-llama")


def test_without_a_token_or_with_a_wrong_one_nothing_opens(locked, authority, access):
    wrong = access.tokens["alice"][:-1] + "?"

    with (
        Client(locked.address, ca=authority.certificate) as client,
        pytest.raises(ess_client.Unauthenticated, match="no token was sent"),
    ):
        client.models()
    with (
        Client(locked.address, ca=authority.certificate, token=wrong) as client,
        pytest.raises(ess_client.Unauthenticated) as caught,
    ):
        client.models()
    assert wrong not in str(caught.value)


def test_without_tls_or_with_another_authority_there_is_no_connection(
    locked, authority, access, tmp_path
):
    token = access.tokens["alice"]
    other = Authority(tmp_path / "other", "another authority")

    with (
        Client(locked.address, token=token, retries=0) as client,
        pytest.raises(ess_client.Unavailable, match="does it want TLS"),
    ):
        client.models()
    with (
        Client(locked.address, ca=other.certificate, token=token, retries=0) as client,
        pytest.raises(ess_client.Unavailable, match="no secure connection"),
    ):
        client.models()


def test_a_certificate_of_ones_own_takes_the_place_of_a_token(authority, model_root):
    mine = authority.issue("carol")
    flags = tls_flags(authority.issue_server("mutual"), authority)

    async def ask(address):
        async with AsyncClient(
            address, ca=authority.certificate, certificate=mine.certificate, key=mine.key
        ) as client:
            return await client.profile("tiny-llama", **PROMPTS)

    with ServerProcess(f"--model_root={model_root}", *flags) as server:
        assert asyncio.run(ask(server.address)).layers
        with (
            Client(server.address, ca=authority.certificate, retries=0) as client,
            pytest.raises(ess_client.Unavailable),
        ):
            client.models()


def test_the_command_takes_server_authority_and_token_from_its_file(
    locked, authority, access, tmp_path
):
    folder = tmp_path / "ess"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.certificate.read_bytes())
    (folder / "token").write_text(f"{access.tokens['alice']}\n")
    (folder / "token").chmod(0o600)
    (folder / "client.toml").write_text(
        f'[servers.lab]\nserver = "{locked.address}"\nca = "ca.pem"\ntoken_file = "token"\n'
    )

    def ess(*arguments):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ESS_")},
            "XDG_CONFIG_HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT / "client"),
        }
        return subprocess.run(
            [ROOT / ".venv" / "bin" / "ess", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    listed = ess("models", "list", "--server", "lab", "--json")
    (folder / "token").chmod(0o644)
    warned = ess("models", "list", "--server", locked.address)
    elsewhere = ess("models", "list", "--server", locked.address, "--token-file", "/nowhere")

    assert (listed.returncode, listed.stderr) == (0, "")
    assert "tiny-llama" in {model["name"] for model in json.loads(listed.stdout)}
    assert warned.returncode == 0
    assert "holds a secret and others may use it (mode 0644)" in warned.stderr
    assert elsewhere.returncode == 10
    assert access.tokens["alice"] not in listed.stdout + warned.stderr + elsewhere.stderr
