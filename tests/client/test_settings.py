"""Where settings come from, which one wins, and what is said of a wrong one."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ess_client
from ess_client import Client, InvalidArgument, SecretWarning, settings
from ess_client.cli.main import app
from ess_client.settings import is_loopback, resolve

TOKEN = "correct-horse-battery"
PEM = "-----BEGIN CERTIFICATE-----\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def test_an_argument_goes_before_the_environment_the_file_and_the_default(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (resolve().address, resolve().retries) == ("127.0.0.1:8001", 3)
    write(configuration, 'server = "file:1"\nretries = 5\ntimeout = 2.5\nclient_id = "me"\n')
    assert (resolve().address, resolve().retries, resolve().timeout) == ("file:1", 5, 2.5)
    monkeypatch.setenv("ESS_SERVER", "environment:2")
    monkeypatch.setenv("ESS_RETRIES", "6")
    assert (resolve().address, resolve().retries) == ("environment:2", 6)
    found = resolve(address="argument:3", retries=0)
    assert (found.address, found.retries, found.timeout, found.client_id) == (
        "argument:3",
        0,
        2.5,
        "me",
    )
    monkeypatch.setenv("ESS_SERVER", "")  # Empty: as if it were not there.
    assert resolve().address == "file:1"


def test_every_key_can_be_given_in_the_file_and_in_the_environment(
    configuration: Path, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "key.pem").chmod(0o600)
    written = {
        "server": "lab:8001",
        "tls": "true",
        "ca": str(tmp_path / "ca.pem"),
        "certificate": str(tmp_path / "ca.pem"),
        "key": str(tmp_path / "key.pem"),
        "token_file": str(secret),
        "plaintext_token": "false",
        "timeout": "4",
        "retries": "7",
        "client_id": "me",
    }
    assert set(settings._KEYS) == {*written, "token"}
    lines = [
        f"{key} = {value if value in ('true', 'false') or value.isdigit() else repr(value)}"
        for key, value in written.items()
    ]
    write(configuration, "\n".join(lines))
    from_file = resolve()
    configuration.unlink()
    for key, value in written.items():
        monkeypatch.setenv(settings._KEYS[key][0], value)

    assert resolve() == from_file
    assert (from_file.address, from_file.tls, from_file.token) == ("lab:8001", True, TOKEN)
    assert (from_file.timeout, from_file.retries, from_file.client_id) == (4, 7, "me")
    assert from_file.ca == from_file.certificate == PEM.encode()


def test_a_server_has_a_name_in_the_file(configuration: Path, secret: Path) -> None:
    configuration.with_name("lab.pem").write_text(PEM)
    write(
        configuration,
        f"""
        retries = 5
        [servers.lab]
        server = "gpu-1.example:8001"
        ca = "lab.pem"  # Beside client.toml.
        token_file = "{secret}"
        [servers.other]
        server = "gpu-2.example:8001"
        retries = 1
        """,
    )

    lab = resolve(address="lab")

    assert (lab.address, lab.tls, lab.token) == ("gpu-1.example:8001", True, TOKEN)
    assert (lab.ca, lab.retries) == (PEM.encode(), 5)
    assert resolve(address="gpu-1.example:8001") == lab
    assert (resolve(address="other").retries, resolve(address="other").token) == (1, None)
    assert resolve().address == "127.0.0.1:8001"


def test_a_token_of_the_file_goes_to_its_own_server_only(
    configuration: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(configuration, f'server = "127.0.0.1:1"\ntoken_file = "{secret}"\n')

    assert resolve().token == TOKEN
    assert resolve(address="127.0.0.1:1").token == TOKEN
    assert resolve(address="127.0.0.1:2").token is None
    monkeypatch.setenv("ESS_SERVER", "127.0.0.1:2")
    assert resolve().token is None
    monkeypatch.setenv("ESS_TOKEN", "mine")
    assert resolve().token == "mine"


def test_a_token_stands_above_a_token_file_of_a_lower_level(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESS_TOKEN_FILE", str(secret))

    assert resolve().token == TOKEN
    assert resolve(token="mine").token == "mine"
    monkeypatch.setenv("ESS_TOKEN", "other")
    assert resolve(token_file=secret).token == TOKEN
    with pytest.raises(InvalidArgument, match="ESS_TOKEN and ESS_TOKEN_FILE are both given"):
        resolve()


def test_tls_switched_off_needs_no_certificates_of_a_lower_level(
    configuration: Path, tmp_path: Path
) -> None:
    configuration.with_name("ca.pem").write_text(PEM)
    write(configuration, 'ca = "ca.pem"\n')

    assert resolve().tls
    assert (resolve(tls=False).tls, resolve(tls=False).ca) == (False, None)
    with pytest.raises(InvalidArgument, match="tls is off, and ca needs it"):
        resolve(tls=False, ca=configuration.with_name("ca.pem"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server = !", "{file} is not TOML: Invalid value (at line 1, column 10)"),
        ("tsl = true", "{file}: there is no key tsl; there are server, tls, ca,"),
        ("[servers.lab]\nservre = 1", "{file}: servers.lab has no key server"),
        ('[servers.lab]\nserver = "a:1"\nx = 1', "{file}: there is no key servers.lab.x"),
        ("servers = 3", "{file}: servers holds tables"),
        ("timeout = 0", "{file}: timeout is 0; it must be above 0 (seconds)"),
        ('timeout = "long"', "{file}: timeout is 'long'; it must be above 0"),
        ("timeout = true", "{file}: timeout is True"),
        ("retries = -1", "{file}: retries is '-1'; it lies between 0 and 100"),
        ("retries = 1000", "{file}: retries is '1000'"),
        ("server = 8001", "{file}: server is 8001; it is text without spaces"),
        ('tls = "maybe"', "{file}: tls is 'maybe'; it is true or false"),
        ("ca = 3", "{file}: ca is 3; it is the path of a file"),
        ('ca = "client.toml"', "{file}: ca: {file} holds no certificate in PEM format"),
        ('key = "k.pem"', "k.pem holds no private key in PEM format"),
        ('token = "two words"', "{file}: token holds a space"),
        ('token = ""', "{file}: token holds no token"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_key(
    configuration: Path, text: str, reason: str
) -> None:
    write(configuration, text)
    write(configuration.with_name("k.pem"), "no key")

    with pytest.raises(InvalidArgument, match=re.escape(reason.format(file=configuration))):
        resolve()


def test_a_wrong_variable_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESS_TIMEOUT", "long")

    with pytest.raises(InvalidArgument, match="ESS_TIMEOUT is 'long'; it must be above 0"):
        resolve()


def test_a_file_that_is_not_there_is_named_with_who_asks_for_it(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(configuration, 'ca = "gone.pem"\n')
    with pytest.raises(FileNotFoundError) as caught:
        resolve()
    assert caught.value.filename == str(configuration.with_name("gone.pem"))
    assert f"named by {configuration}: ca" in str(caught.value)
    configuration.unlink()

    monkeypatch.setenv("ESS_TOKEN_FILE", "/nowhere/token")
    result = CliRunner().invoke(app, ["info"])

    assert result.exit_code == 10
    expected = "ess: /nowhere/token: No such file or directory (named by ESS_TOKEN_FILE)\n"
    assert result.stderr == expected


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text(PEM)

    with pytest.raises(InvalidArgument, match="certificate needs key beside it"):
        Client(certificate=tmp_path / "c.pem")


def test_a_secret_that_others_may_read_is_a_warning(
    configuration: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve(token_file=secret)
    secret.chmod(0o640)
    with pytest.warns(SecretWarning, match=r"may use it \(mode 0640\); chmod 600 it"):
        resolve(token_file=secret)
    configuration.write_text(f'token = "{TOKEN}"\n')
    configuration.chmod(0o604)
    with pytest.warns(SecretWarning, match=re.escape(f"{configuration} holds a secret")):
        resolve()

    result = CliRunner().invoke(app, ["info", "--server", "127.0.0.1:1", "--retries", "0"])

    assert f"ess: warning: {configuration} holds a secret" in result.stderr
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1:8001", True),
        ("127.5.0.1:8001", True),
        ("localhost:8001", True),
        ("dns:///localhost:8001", True),
        ("[::1]:8001", True),
        ("unix:/run/ess.sock", True),
        ("10.0.0.1:8001", False),
        ("127.0.0.1.example:8001", False),
        ("localhost.example:8001", False),
        ("gpu-1:8001", False),
        ("[::]:8001", False),
    ],
)
def test_a_token_leaves_this_machine_over_tls_only(address: str, is_here: bool) -> None:
    assert is_loopback(address) == is_here
    if is_here:
        assert resolve(address=address, token=TOKEN).token == TOKEN
    else:
        with pytest.raises(InvalidArgument, match="in the clear"):
            resolve(address=address, token=TOKEN)
    assert resolve(address=address, token=TOKEN, tls=True).token == TOKEN
    assert resolve(address=address, token=TOKEN, plaintext_token=True).token == TOKEN


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é", "x" * 5000])
def test_what_cannot_be_a_token_is_refused_without_being_shown(token: str, tmp_path: Any) -> None:
    with pytest.raises(InvalidArgument, match="token holds") as caught:
        resolve(token=token)

    assert not token or token not in str(caught.value)


def test_a_client_says_where_it_goes() -> None:
    with Client("localhost:1", token=TOKEN) as client:
        assert repr(client) == "Client('localhost:1')"
    assert repr(ess_client.AsyncClient("lab:1", tls=True)) == "AsyncClient('lab:1', tls=True)"


def test_the_document_has_every_key_variable_and_flag() -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    start = text.index("### Which server, TLS and tokens")
    table = text[start : text.index("The left wins", start)]
    help_text = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["info", "--help"]).stdout

    documented = {name for name in re.findall(r"`([^`]+)`", table)}
    flags = {name for name in re.findall(r"--[a-z-]+", help_text)}

    for key, (variable, _) in settings._KEYS.items():
        assert {key, variable} <= documented
    assert flags - {"--help", "--json", "--no-plaintext-token"} <= documented
