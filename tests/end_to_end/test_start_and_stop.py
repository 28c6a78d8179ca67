"""How the server starts, refuses to start, and stops."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ess_client import Client, Unavailable

from .server_process import ROOT, ServerProcess, run_server


def test_the_ready_line_names_the_ports_that_were_bound(server):
    for address in (server.address, server.metrics_address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass


def environment_of(server):
    entries = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if b"=" in entry)


def test_waiting_threads_spin_briefly_unless_the_environment_says_otherwise():
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    plain = {name: value for name, value in os.environ.items() if name not in names}

    with ServerProcess(environment=plain) as server:
        chosen = environment_of(server)
        name = Path(f"/proc/{server.process.pid}/comm").read_text().strip()
    with ServerProcess(environment={**plain, "OMP_WAIT_POLICY": "active"}) as server:
        given = environment_of(server)

    assert chosen["GOMP_SPINCOUNT"] == "10000"
    assert name == "ess_server"
    assert "GOMP_SPINCOUNT" not in given


@pytest.mark.parametrize("flag", ["--listen", "--metrics_listen"])
def test_a_port_in_use_is_one_clear_line_and_a_failure(server, flag):
    taken = server.address if flag == "--listen" else server.metrics_address
    others = {"--listen": "127.0.0.1:0", "--metrics_listen": "127.0.0.1:0", flag: taken}

    second = run_server(*(f"{name}={value}" for name, value in others.items()))

    assert second.returncode == 1
    assert second.stdout == ""
    last = second.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ess_server: {flag[2:]}: cannot listen on {taken}: the port is in use")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("listn: 'x'", "line 1, column"),
        ("threads: 'two'", "line 1, column"),
        ("threads: -1", "threads: -1 is negative"),
        ("max_prompts: -5", "max_prompts: -5 is negative"),
        ("metrics_measure: 'tolerance:0'", "metrics_measure: "),
        ("device: 'abacus'", "device: 'abacus' is not a device"),
        ("device: 'cuda:99'", "device: 'cuda:99' is not on this machine"),
        ("model_root: '/nowhere/at/all'", "model_root: '/nowhere/at/all' is not a folder"),
        ("models { path: 'x' }", "models: a model has no name"),
        ("log_format: 'xml'", "log_format: 'xml' is neither text nor json"),
        ("drain_seconds: 1 drain_delay_seconds: 2", "drain_delay_seconds: 2 is more than the 1 of"),
        ("state_dir: '/dev/null'", "state_dir: cannot make '/dev/null': Not a directory"),
        ("state_dir: '/dev/null/x'", "state_dir: cannot make '/dev/null/x': Not a directory"),
        ("state_dir: '/proc/1/net'", "state_dir: cannot write '/proc/1/net': "),
    ],
)
def test_a_bad_configuration_is_one_clear_line_and_a_failure(tmp_path, text, message):
    path = tmp_path / "server.textproto"
    if text is not None:
        path.write_text(text)

    result = run_server(f"--config={path}", "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0")

    assert result.returncode == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_what_a_killed_server_leaves_does_not_stop_the_next(tmp_path):
    state = tmp_path / "new" / "state"
    with ServerProcess(f"--state_dir={state}") as server:
        server.process.kill()
        server.process.wait(60)
    (state / "job-1.partial").write_bytes(b"\0" * 100)
    (state / "jobs").mkdir(exist_ok=True)
    with ServerProcess(f"--state_dir={state}") as server, Client(server.address) as client:
        assert client.server_info().max_prompts == 256


def test_a_state_folder_has_one_server(tmp_path):
    flags = (f"--state_dir={tmp_path}", "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0")
    with ServerProcess(f"--state_dir={tmp_path}"):
        second = run_server(*flags)
    assert second.returncode == 1
    assert f"state_dir: another ess_server uses '{tmp_path}'" in second.stderr


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_of_start_and_end(tmp_path, abstract):
    name = f"@ess-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(name.replace("@", "\0") if abstract else name)
        with ServerProcess(environment={**os.environ, "NOTIFY_SOCKET": name}) as server:
            assert manager.recv(100) == b"READY=1"
            server.process.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            assert server.process.wait(60) == 0


def test_an_empty_configuration_means_the_defaults(tmp_path):
    path = tmp_path / "server.textproto"
    path.touch()
    with ServerProcess(f"--config={path}") as server, Client(server.address) as client:
        assert client.server_info().max_prompts == 256


def test_flags_override_the_configuration_file(tmp_path, model_root):
    path = tmp_path / "server.textproto"
    path.write_text(f"model_root: '/nowhere' threads: 1 max_prompts: 3 # {model_root}\n")
    with (
        ServerProcess(f"--config={path}", f"--model_root={model_root}") as server,
        Client(server.address) as client,
    ):
        info = client.server_info()
        assert info.threads == 1
        assert info.max_prompts == 3
        assert "tiny-llama" in [model.name for model in client.models()]


def test_a_configured_model_is_served_under_its_name(tmp_path, model_root):
    path = tmp_path / "server.textproto"
    path.write_text(f"models {{ name: 'renamed' path: '{model_root / 'tiny-gpt2'}' }}")
    with ServerProcess(f"--config={path}") as server, Client(server.address) as client:
        assert [model.name for model in client.models()] == ["renamed"]
        assert client.profile("renamed", token_ids=[[1, 2, 3]]).ess.sizes["position"] == 3


def test_a_preload_is_resident_at_the_ready_line(model_root):
    flags = (f"--model_root={model_root}", "--preload=tiny-gpt2")
    with ServerProcess(*flags) as server, Client(server.address) as client:
        states = {model.name: model.state for model in client.models()}
    assert states["tiny-gpt2"].lower() == "ready"
    assert states["tiny-llama"].lower() == "cold"


def test_a_failed_preload_is_logged_and_the_server_still_starts(model_root):
    with ServerProcess(f"--model_root={model_root}", "--preload=missing,tiny-gpt2") as server:
        assert "preload of 'missing' failed" in server.log()
        with Client(server.address) as client:
            client.profile("tiny-gpt2", token_ids=[[1, 2]])


def test_version_and_help_end_at_once():
    assert "ess_server 0." in run_server("--version").stdout
    assert "--model_root" in run_server("--help").stdout


def test_an_unknown_flag_or_argument_is_refused():
    for argument in ("--colour=red", "stray"):
        result = run_server(argument)
        assert result.returncode == 1
        assert argument.strip("-").split("=")[0] in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_success(model_root, stop):
    with ServerProcess(f"--model_root={model_root}") as server:
        server.process.send_signal(stop)
        assert server.process.wait(30) == 0


def test_sigterm_lets_a_running_profile_finish(model_root):
    with ServerProcess(f"--model_root={model_root}") as server, Client(server.address) as client:
        started = threading.Event()
        results = []

        def run():
            results.append(
                client.profile(
                    "tiny-llama",
                    token_ids=[list(range(200))] * 20,
                    progress=lambda _: started.set(),
                )
            )

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(60)
        server.process.send_signal(signal.SIGTERM)
        thread.join(60)

        assert server.process.wait(30) == 0
        assert results[0].ess.sizes["prompt"] == 20


def test_a_draining_server_is_not_serving_and_refuses_new_work(model_root):

    with ServerProcess(f"--model_root={model_root}") as server, Client(server.address) as client:
        watch_channel = grpc.insecure_channel(server.address)
        health = health_pb2_grpc.HealthStub(watch_channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        started, refused = threading.Event(), threading.Event()

        def hold():
            # Reads nothing after the first piece, so that the profile cannot finish.
            client.profile(
                "tiny-llama",
                token_ids=[list(range(256))] * 100,
                progress=lambda _: (started.set(), refused.wait(60)),
            )

        thread = threading.Thread(target=hold)
        thread.start()
        assert started.wait(60)
        server.process.send_signal(signal.SIGTERM)

        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with Client(server.address) as other, pytest.raises(Unavailable, match="shutting down"):
            other.profile("tiny-llama", token_ids=[[1, 2]])
        refused.set()
        thread.join(60)
        assert server.process.wait(60) == 0
        watch_channel.close()


def test_the_example_configuration_works():
    example = ROOT / "deploy" / "ess_server.textproto"
    with ServerProcess(f"--config={example}") as server, Client(server.address) as client:
        assert client.server_info().max_prompts == 256


def test_an_installed_server_runs(tmp_path):
    subprocess.run(
        ["cmake", "--install", ROOT / "build", "--prefix", tmp_path],
        check=True,
        capture_output=True,
    )
    program = tmp_path / "bin" / "ess_server"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("ess_server ")
