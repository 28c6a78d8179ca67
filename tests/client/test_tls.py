"""TLS and tokens on a real connection, with certificates made here."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from replay_server import ReplayServer
from typer.testing import CliRunner

import ess_client
from ess_client import AsyncClient, Client
from ess_client.cli.main import app
from tests.end_to_end.certificates import Authority, Pair

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mine(authority: Authority) -> Pair:
    return authority.issue("me")


def secure_server(authority: Authority, mutual: bool) -> ReplayServer:
    own = authority.issue_server()
    roots = authority.certificate.read_bytes() if mutual else None
    pairs = [(own.key.read_bytes(), own.certificate.read_bytes())]
    return ReplayServer(grpc.ssl_server_credentials(pairs, roots, mutual))


@pytest.fixture(scope="module")
def tls_server(authority: Authority) -> Iterator[ReplayServer]:
    with secure_server(authority, mutual=False) as server:
        yield server


@pytest.fixture(scope="module")
def mutual_server(authority: Authority) -> Iterator[ReplayServer]:
    with secure_server(authority, mutual=True) as server:
        yield server


def test_a_server_is_checked_by_the_authority_that_was_given(
    tls_server: ReplayServer, authority: Authority
) -> None:
    with Client(tls_server.address, ca=authority.certificate, token=TOKEN) as client:
        assert client.models()

    assert tls_server.metadata["authorization"] == f"Bearer {TOKEN}"


def test_the_same_holds_for_the_asynchronous_client(
    mutual_server: ReplayServer, authority: Authority, mine: Pair
) -> None:
    async def ask() -> None:
        async with AsyncClient(
            mutual_server.address,
            ca=authority.certificate,
            certificate=mine.certificate,
            key=mine.key,
            token=TOKEN,
        ) as client:
            assert await client.models()

    asyncio.run(ask())

    assert mutual_server.metadata["authorization"] == f"Bearer {TOKEN}"


def test_a_server_with_another_authority_is_not_talked_to(
    tls_server: ReplayServer, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")

    with (
        Client(tls_server.address, ca=other.certificate, retries=0) as client,
        pytest.raises(
            ess_client.Unavailable, match=f"no secure connection to {tls_server.address}"
        ),
    ):
        client.models()


def test_a_server_without_tls_is_not_talked_to_with_tls(
    server: ReplayServer, authority: Authority
) -> None:
    with (
        Client(server.address, ca=authority.certificate, token=TOKEN, retries=0) as client,
        pytest.raises(ess_client.Unavailable, match="no secure connection to"),
    ):
        client.models()

    assert server.requests == []


def test_a_server_with_tls_that_is_called_without_is_told(tls_server: ReplayServer) -> None:
    with (
        Client(tls_server.address, retries=0) as client,
        pytest.raises(ess_client.Unavailable, match="no server answers at .*does it want TLS"),
    ):
        client.models()


def test_a_call_without_a_token_is_told_where_tokens_come_from(server: ReplayServer) -> None:
    server.failure = (grpc.StatusCode.UNAUTHENTICATED, "a token is needed")

    def refused(token: str | None) -> str:
        with (
            Client(server.address, token=token) as client,
            pytest.raises(ess_client.Unauthenticated) as caught,
        ):
            client.models()
        return caught.value.message

    assert "needed; no token was sent: token_file, --token-file, ESS_TOKEN" in refused(None)
    assert refused(TOKEN) == "a token is needed"


def test_mutual_tls_needs_the_certificate_of_the_client(
    mutual_server: ReplayServer, authority: Authority, mine: Pair
) -> None:
    address, ca = mutual_server.address, authority.certificate

    with Client(address, ca=ca, certificate=mine.certificate, key=mine.key) as client:
        assert client.models()
    with Client(address, ca=ca, retries=0) as client, pytest.raises(ess_client.Unavailable):
        client.models()


def test_the_command_takes_them_as_flags(
    mutual_server: ReplayServer, authority: Authority, mine: Pair, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    token_file.chmod(0o600)
    flags = ["--server", mutual_server.address, "--ca", authority.certificate]
    flags += ["--cert", mine.certificate, "--key", mine.key, "--token-file", token_file]

    result = CliRunner().invoke(app, ["info", *map(str, flags)])

    assert (result.exit_code, result.stderr) == (0, "")
    assert mutual_server.metadata["authorization"] == f"Bearer {TOKEN}"


def test_the_token_is_in_no_text_that_may_be_shown(
    server: ReplayServer, caplog: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.failure = (grpc.StatusCode.UNAUTHENTICATED, "no such token")

    with Client(server.address, token=TOKEN) as client:
        try:
            client.models()
        except ess_client.Unauthenticated as error:
            texts = [repr(error), str(error), *traceback.format_exception(error)]
        texts += [repr(client), repr(client._settings), repr(client.__dict__["_settings"])]
    with pytest.raises(ess_client.InvalidArgument, match="in the clear") as caught:
        Client("gpu-1:8001", token=TOKEN)
    texts += [str(caught.value), repr(caught.value), caplog.text, *capfd.readouterr()]

    assert server.metadata["authorization"] == f"Bearer {TOKEN}"
    assert not [text for text in texts if TOKEN in text]
