"""Who gets in: TLS, certificates and tokens that change, and what a server refuses to be."""

import ssl
import threading

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from .certificates import Authority, secure_channel, tls_flags
from .health import is_serving
from .raw_calls import code_of, info, profile
from .server_process import ServerProcess, run_server, wait_for
from .tokens import AccessFile, bearer, new_token

REPLACED_SECONDS = 10  # The server looks once a second, and gRPC at what it found.


def common_name(address):
    """Of the certificate that a new connection gets."""
    host, port = address.split(":")
    text = ssl.get_server_certificate((host, int(port)), timeout=20)
    der = ssl.PEM_cert_to_DER_cert(text)
    return next(name for name in ("first", "second", "server") if name.encode() in der)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


class TestTls:
    def test_a_client_who_trusts_the_authority_gets_a_profile(self, authority, model_root):
        flags = tls_flags(authority.issue_server())
        with ServerProcess(f"--model_root={model_root}", *flags) as server:
            with secure_channel(server.address, authority) as channel:
                assert profile(channel)[-1].HasField("summary")
            with grpc.insecure_channel(server.address) as channel:
                assert code_of(info, channel) == grpc.StatusCode.UNAVAILABLE

    def test_a_client_who_trusts_another_authority_does_not_connect(self, authority, tmp_path):
        other = Authority(tmp_path / "other")
        with (
            ServerProcess(*tls_flags(authority.issue_server())) as server,
            secure_channel(server.address, other) as channel,
        ):
            assert code_of(info, channel) == grpc.StatusCode.UNAVAILABLE

    def test_a_required_client_certificate_is_the_callers_name(self, authority, tmp_path):
        other = Authority(tmp_path / "other", "another authority")
        flags = tls_flags(authority.issue_server(), authority)
        with ServerProcess(*flags) as server:
            with secure_channel(server.address, authority) as channel:
                assert code_of(info, channel) == grpc.StatusCode.UNAVAILABLE
            with secure_channel(server.address, authority, other.issue("mallory")) as channel:
                assert code_of(info, channel) == grpc.StatusCode.UNAVAILABLE
            with secure_channel(server.address, authority, authority.issue("carol")) as channel:
                info(channel)
            wait_for(lambda: "caller=subject:carol" in server.log())

    def test_an_optional_client_certificate_gives_a_role(self, authority, tmp_path):
        access = AccessFile(tmp_path / "access", alice="user")
        access.add_certificate("carol", "viewer")
        config = tmp_path / "server.textproto"
        config.write_text('tls_client_certificates: "optional"')
        flags = tls_flags(authority.issue_server(), authority)
        with ServerProcess(f"--config={config}", access.flag, *flags) as server:
            with secure_channel(server.address, authority) as channel:
                assert code_of(info, channel) == grpc.StatusCode.UNAUTHENTICATED
                info(channel, bearer(access.tokens["alice"]))
            with secure_channel(server.address, authority, authority.issue("carol")) as channel:
                info(channel)
                assert code_of(profile, channel) == grpc.StatusCode.PERMISSION_DENIED
                # A token is what counts, where there is one.
                assert code_of(info, channel, bearer("x")) == grpc.StatusCode.UNAUTHENTICATED
            with secure_channel(server.address, authority, authority.issue("dave")) as channel:
                assert code_of(info, channel) == grpc.StatusCode.UNAUTHENTICATED


class TestReplacedCertificates:
    @pytest.fixture
    def files(self, authority, tmp_path):
        """The certificate in use; `replace` puts another in its place."""
        pair = authority.issue_server()
        for name in ("first", "second"):
            authority.issue_server(name)
        return pair

    @staticmethod
    def replace(authority, files, name):
        for file, new in (
            (files.key, authority.folder / f"{name}.key"),
            (files.certificate, authority.folder / f"{name}.pem"),
        ):
            copy = file.with_suffix(".new")
            copy.write_bytes(new.read_bytes())
            copy.rename(file)

    def test_a_swap_under_load_reaches_new_connections_and_ends_no_old_one(
        self, authority, files, model_root
    ):
        self.replace(authority, files, "first")
        failed, answered, end = [], [], threading.Event()

        def call_on_one_connection(channel):
            while not end.is_set():
                code = code_of(profile, channel)
                (answered if code == grpc.StatusCode.OK else failed).append(code)

        def call_on_new_connections(address):
            while not end.is_set():
                with secure_channel(address, authority) as channel:
                    code = code_of(info, channel)
                (answered if code == grpc.StatusCode.OK else failed).append(code)

        with (
            ServerProcess(f"--model_root={model_root}", *tls_flags(files)) as server,
            secure_channel(server.address, authority) as old,
        ):
            profile(old)
            calls = [
                threading.Thread(target=call_on_one_connection, args=(old,)),
                threading.Thread(target=call_on_new_connections, args=(server.address,)),
            ]
            for thread in calls:
                thread.start()
            assert common_name(server.address) == "first"
            for name in ("second", "first", "second"):
                self.replace(authority, files, name)
                wait_for(lambda name=name: common_name(server.address) == name, REPLACED_SECONDS)
            before = len(answered)
            wait_for(lambda: len(answered) > before + 20)
            end.set()
            for thread in calls:
                thread.join()

        assert failed == []

    def test_a_broken_replacement_is_logged_and_what_was_there_goes_on(self, authority, files):
        self.replace(authority, files, "first")
        key = files.key.read_text()
        with ServerProcess(*tls_flags(files)) as server:
            for broken in ("", key[: len(key) // 2], (authority.folder / "second.key").read_text()):
                logged = server.log().count("stay in force")
                files.key.write_text(broken)
                wait_for(lambda n=logged: server.log().count("stay in force") > n)
                with secure_channel(server.address, authority) as channel:
                    info(channel)
                assert common_name(server.address) == "first"
            self.replace(authority, files, "second")
            wait_for(lambda: common_name(server.address) == "second", REPLACED_SECONDS)


class TestTokens:
    def test_a_changed_access_file_counts_within_seconds_and_a_broken_one_never(self, tmp_path):
        access = AccessFile(tmp_path / "access", alice="viewer", bob="user")
        with (
            ServerProcess(access.flag) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            alice, bob = bearer(access.tokens["alice"]), bearer(access.tokens["bob"])
            info(channel, alice)
            info(channel, bob)

            access.remove("bob")
            wait_for(lambda: code_of(info, channel, bob) == grpc.StatusCode.UNAUTHENTICATED)
            info(channel, alice)

            access.path.write_text("alice viewer nonsense\n")
            wait_for(lambda: "what it said before stays in force" in server.log())
            info(channel, alice)

            access.add("carol", "viewer")
            wait_for(
                lambda: code_of(info, channel, bearer(access.tokens["carol"])) == grpc.StatusCode.OK
            )

    def test_the_name_is_in_the_log_and_the_token_never(self, tmp_path):
        access = AccessFile(tmp_path / "access", alice="viewer")
        token = access.tokens["alice"]
        with (
            ServerProcess(access.flag) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            info(channel, [*bearer(token), ("ess-client-id", "somebody else")])
            code_of(info, channel, bearer(token[:-1]))
            wait_for(lambda: "code=UNAUTHENTICATED" in server.log())
            assert "caller=subject:alice" in server.log()
            assert token[:-1] not in server.log()
            assert "somebody else" not in server.log()

    def test_a_new_token_is_printed_once_and_only_its_hash_is_kept(self):
        token, line = new_token("team/alice", "admin")
        assert line.startswith("team/alice admin sha256:")
        assert token not in line

    @pytest.mark.parametrize("wrong", ["alice", "alice:root", ":user", "a b:user", "alice:"])
    def test_a_new_token_needs_a_name_and_a_role(self, wrong):
        run = run_server(f"--new_token={wrong}")
        assert run.returncode == 1
        assert "is not NAME:ROLE" in run.stderr
        assert run.stdout == ""

    def test_probes_need_no_token(self, tmp_path):
        access = AccessFile(tmp_path / "access", alice="viewer")
        with ServerProcess(access.flag) as server:
            assert is_serving(server.address)


class TestDoors:
    """Ports that others can reach."""

    NETWORK = "--listen=0.0.0.0:0"
    METRICS = "--metrics_listen=127.0.0.1:0"

    @pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "some-host:0"])
    def test_without_tls_the_network_is_refused(self, address):
        run = run_server(f"--listen={address}", self.METRICS)
        assert run.returncode == 1
        assert f"listen: others can reach {address}" in run.stderr
        assert "allow_insecure_network" in run.stderr

    def test_tokens_without_tls_are_not_enough(self, tmp_path):
        access = AccessFile(tmp_path / "access", alice="user")
        run = run_server(self.NETWORK, self.METRICS, access.flag)
        assert "without TLS" in run.stderr

    def test_tls_without_callers_is_not_enough(self, authority):
        run = run_server(self.NETWORK, self.METRICS, *tls_flags(authority.issue_server()))
        assert run.returncode == 1
        assert "access_file" in run.stderr
        assert "anybody may do everything" in run.stderr

    def test_metrics_on_the_network_need_a_word(self, tmp_path):
        run = run_server("--listen=127.0.0.1:0", "--metrics_listen=0.0.0.0:0")
        assert run.returncode == 1
        assert "allow_metrics_on_network" in run.stderr
        config = tmp_path / "server.textproto"
        config.write_text("allow_metrics_on_network: true")
        with ServerProcess(f"--config={config}", "--metrics_listen=0.0.0.0:0") as server:
            assert server.metrics()

    def test_tls_and_tokens_open_the_network_but_for_reflection(self, authority, tmp_path):
        access = AccessFile(tmp_path / "access", alice="user")
        flags = [self.NETWORK, access.flag, *tls_flags(authority.issue_server())]
        config = tmp_path / "server.textproto"
        config.write_text("allow_reflection_on_network: true")
        for more, served in (([], False), ([f"--config={config}"], True)):
            with ServerProcess(*flags, *more) as server:
                address = server.address.replace("0.0.0.0", "127.0.0.1")
                with secure_channel(address, authority) as channel:
                    info(channel, bearer(access.tokens["alice"]))
                    assert code_of(info, channel) == grpc.StatusCode.UNAUTHENTICATED
                    database = ProtoReflectionDescriptorDatabase(channel)
                    code = code_of(lambda d=database: list(d.get_services()))
                    assert (code == grpc.StatusCode.OK) == served

    def test_a_flag_in_plain_words_opens_everything(self):
        with ServerProcess(self.NETWORK, "--allow_insecure_network") as server:
            address = server.address.replace("0.0.0.0", "127.0.0.1")
            with grpc.insecure_channel(address) as channel:
                info(channel)
            assert "allow_insecure_network: TLS off, tokens off" in server.log()


class TestRefusedStarts:
    def refuse(self, *flags):
        run = run_server("--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", *flags)
        assert (run.returncode, run.stdout) == (1, "")
        return run.stderr.strip().splitlines()[-1]

    def test_files_that_are_not_there_or_not_a_pair(self, authority, tmp_path):
        one, other = authority.issue_server("one"), authority.issue_server("other")
        certificate, key = f"--tls_certificate={one.certificate}", f"--tls_key={one.key}"
        none = tmp_path / "none"
        assert "tls_key: it is missing" in self.refuse(certificate)
        assert "tls_certificate: it is missing" in self.refuse(key)
        assert "tls_key: cannot read" in self.refuse(certificate, f"--tls_key={none}")
        assert "tls_certificate: cannot read" in self.refuse(f"--tls_certificate={none}", key)
        assert "is not the key of" in self.refuse(certificate, f"--tls_key={other.key}")
        assert "no private key" in self.refuse(certificate, f"--tls_key={one.certificate}")
        assert "no certificates" in self.refuse(f"--tls_certificate={one.key}", key)
        assert "tls_client_ca: it needs TLS" in self.refuse(f"--tls_client_ca={one.certificate}")
        assert "tls_client_ca: cannot read" in self.refuse(
            certificate, key, f"--tls_client_ca={none}"
        )
        assert "access_file: cannot read" in self.refuse(f"--access_file={none}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('tls_client_certificates: "maybe"', "neither require nor optional"),
            ("max_message_bytes: 100000000", "the limit is 67108864"),
            ("max_concurrent_streams: -1", "max_concurrent_streams: -1 is negative"),
        ],
    )
    def test_values_that_make_no_sense(self, tmp_path, text, message):
        config = tmp_path / "server.textproto"
        config.write_text(text)
        assert message in self.refuse(f"--config={config}")
