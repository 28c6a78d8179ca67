"""The command `ess`, in this process, against a real gRPC connection."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from replay_server import ReplayServer, operator_answer
from synthetic import messages_of, reduced
from typer.testing import CliRunner

import ess_client
from ess_client import Profile, load_profile
from ess_client._requests import options_message
from ess_client.cli.main import app

Ess = Callable[..., Any]


@pytest.fixture
def ess(options: dict[str, str]) -> Ess:
    """Runs `ess` with these arguments; the result has exit_code, stdout and stderr."""

    def run(*arguments: str | Path) -> Any:
        return CliRunner(env=options).invoke(app, [str(argument) for argument in arguments])

    return run


def test_profile_prints_a_table_and_saves_the_file(
    ess: Ess, server: ReplayServer, ragged: Profile, tmp_path: Path
) -> None:
    server.responses = list(messages_of(ragged))
    output = tmp_path / "p.safetensors"

    result = ess("profile", "--model", "tiny", "--prompt", "a", "--prompt", "b", "-o", output)

    assert result.exit_code == 0, result.stderr
    assert f"saved {output}" in result.stdout
    assert "tolerance:0.001" in result.stdout
    assert f"{float(ragged.average(by='prompt')[0, 2]):.4g}" in result.stdout
    assert "9 of 9 operators x prompts" in result.stderr
    assert load_profile(output).prompt_ids == ["0", "1", "2"]


def test_profile_options_reach_the_request(
    ess: Ess, server: ReplayServer, ragged: Profile, tmp_path: Path
) -> None:
    server.responses = list(messages_of(ragged))
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"text": "hello", "id": "first"}\n\n{"token_ids": [3, 4]}\n')

    result = ess(
        *("profile", "--model", "tiny", "--prompts", lines, "--token-ids", "1,2,3"),
        *("--measure", "tolerance:1e-3", "--measure", "entropy", "--layers", "0-2"),
        *("--heads", "0", "--positions", "0-8:2", "--no-special-tokens", "--certify"),
    )

    assert result.exit_code == 0, result.stderr
    request = server.requests[0]
    assert [p.id for p in request.prompts] == ["first", "", ""]
    assert [list(p.token_ids.ids) for p in request.prompts] == [[], [3, 4], [1, 2, 3]]
    assert len(request.measures) == 2
    assert (request.layers.ranges[0].last, request.positions.ranges[0].stride) == (2, 2)
    assert request.HasField("add_special_tokens")
    assert request.options.certify


def test_gaussian_inputs_reach_the_request(ess: Ess, server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))

    result = ess("profile", "--model", "tiny", "--gaussian", "count=2, length=9,seed=4")

    assert result.exit_code == 0, result.stderr
    gaussian = server.requests[0].gaussian
    assert (gaussian.count, gaussian.length, gaussian.seed) == (2, 9, 4)
    assert not server.requests[0].prompts


def test_a_dry_run_prints_the_estimate_and_runs_nothing(
    ess: Ess, server: ReplayServer, tmp_path: Path
) -> None:
    arguments = ("profile", "--model", "tiny", "--prompt", "a", "--dry-run")

    text = ess(*arguments, "--reduce", "heads", "-o", tmp_path / "p.safetensors")
    answer = json.loads(ess(*arguments, "--json").stdout)

    assert text.exit_code == 0, text.stderr
    assert "about 2.5 s (forward 1 s, ess 1.5 s)" in text.stdout
    assert "DenseOperator, tolerance:0.001: inertia_tree" in text.stdout
    assert answer["peak_bytes"] == 96 << 20
    assert list(tmp_path.iterdir()) == []
    assert all(type(r).__name__ == "ProfileRequest" for r in server.requests)
    assert not server.started.is_set()


@pytest.mark.parametrize("reduce", ["heads", "positions"])
def test_a_reduced_profile_is_printed_and_its_report_refused(
    ess: Ess, server: ReplayServer, ragged: Profile, tmp_path: Path, reduce: str
) -> None:
    server.responses = list(messages_of(reduced(ragged, reduce)))
    output = tmp_path / "p.safetensors"

    result = ess("profile", "--model", "tiny", "--prompt", "a", "--reduce", reduce, "-o", output)
    report = ess("report", output, "-o", tmp_path / "r.html")

    assert result.exit_code == 0, result.stderr
    assert f"{float(ragged.average(by='prompt')[0, 2]):.4g}" in result.stdout
    assert report.exit_code == 3
    assert "profile again without reduce" in report.stderr


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    path = tmp_path / "dense.npz"
    np.savez(path, operator="DenseOperator", T=np.tril(np.ones((2, 4, 4))))
    return path


def test_operators_prints_a_table_and_saves_the_file(
    ess: Ess, server: ReplayServer, dense: Path, tmp_path: Path
) -> None:
    server.operator_responses = operator_answer([0, 1, 1, 1, 0, 1, 2, 3], [2], 4)

    result = ess("operators", dense, "--measure", "tolerance:1e-3", "-o", tmp_path / "out.npz")

    assert result.exit_code == 0, result.stderr
    assert "inertia_tree" in result.stdout
    assert "1.5" in result.stdout  # The mean of all but position 0.
    assert "below the noise floor of 1 of 2 operators" in result.stdout
    assert "8 of 8 values" in result.stderr
    saved = np.load(tmp_path / "out.npz")
    assert saved["ess"].tolist() == [[[0, 1, 1, 1], [0, 1, 2, 3]]]
    assert saved["measures"].tolist() == ["tolerance:0.001"]
    assert saved["tss"].tolist() == [0, 1, 2, 3]
    assert saved["noise_floor"].tolist() == [0, 1e-6]
    assert "certain" not in saved


def test_operators_options_reach_the_declaration(
    ess: Ess, server: ReplayServer, tmp_path: Path
) -> None:
    server.operator_responses = operator_answer(
        [0, 1, 1, 1], [], 4, options_message(2, True, None), [1, 1, 1, 0]
    )
    path = tmp_path / "gla.npz"
    factors = {name: np.ones((4, 3), np.float32) for name in "abc"}
    np.savez(path, operator="DiagonalRecurrence", read=b"before", **factors)

    result = ess(
        *("operators", path, "--measure", "causal", "--positions", "1-3", "--horizon", "2"),
        *("--certify", "--json", "-o", tmp_path / "out.npz"),
    )

    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["measures"][0]["largest"] == 1
    assert result.stderr == ""
    declaration = server.requests[0].declaration
    assert declaration.read_order == 2
    assert declaration.measures[0].WhichOneof("kind") == "causal"
    assert declaration.options == options_message(2, True, None)
    assert np.load(tmp_path / "out.npz")["certain"].tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    ("contents", "exit_code", "reason"),
    [
        ({"operator": "Kalman", "T": np.eye(2)}, 3, "operator is 'Kalman'; it is one of Dense"),
        ({"T": np.eye(2)}, 3, "operator is ''"),
        ({"operator": "DenseOperator", "S": np.eye(2)}, 3, "no argument 'S'; it has T"),
        ({"operator": "DenseOperator"}, 3, "'T'"),
        ({"operator": "DenseOperator", "T": np.eye(2, 3)}, 3, "L = 3, but T has 2"),
        ({"operator": "DenseOperator", "T": np.array([{}])}, 8, "no .npz file of plain arrays"),
    ],
)
def test_a_wrong_file_of_operators_says_why(
    ess: Ess, tmp_path: Path, contents: dict[str, Any], exit_code: int, reason: str
) -> None:
    np.savez(tmp_path / "x.npz", **contents)

    result = ess("operators", tmp_path / "x.npz")

    assert result.exit_code == exit_code
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("contents", [b"", b"not a zip file", b"PK\x03\x04 cut"])
def test_a_file_that_holds_no_arrays_is_corrupt(ess: Ess, tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(contents)

    result = ess("operators", tmp_path / "x.npz")

    assert result.exit_code == 8
    assert "x.npz is no .npz file" in result.stderr


def test_json_output_is_for_scripts(ess: Ess, server: ReplayServer, ragged: Profile) -> None:
    server.responses = list(messages_of(ragged))

    result = ess("profile", "--model", "tiny", "--prompt", "a", "--json")

    answer = json.loads(result.stdout)
    assert result.stderr == ""
    assert [p["tokens"] for p in answer["prompts"]] == [5, 1, 9]
    assert answer["prompts"][1]["measures"]["entropy"]["average"] is None
    assert answer["prompts"][0]["measures"]["entropy"]["total"] > 0


def test_info_and_models_print_what_the_server_says(ess: Ess) -> None:
    assert "gpt2, llama" in ess("info").stdout
    assert "tiny" in ess("models", "list").stdout
    assert json.loads(ess("models", "list", "--json").stdout)[0]["state"] == "ready"
    loaded = ess("models", "load", "tiny", "--random-init", "7").stdout
    assert "ready" in loaded
    assert "seed 7" in loaded
    assert "3.0 MiB given back" in ess("models", "unload", "tiny").stdout
    assert json.loads(ess("info", "--json").stdout)["threads"] == 2


def test_export_writes_one_row_per_value(ess: Ess, ragged: Profile, tmp_path: Path) -> None:
    ragged.save(tmp_path / "p.safetensors")

    result = ess("export", tmp_path / "p.safetensors", "-o", tmp_path / "p.csv")

    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(tmp_path / "p.csv", dtype={"layer": str, "prompt": str})
    pd.testing.assert_frame_equal(table, ragged.to_dataframe(), check_dtype=False)


def test_report_compares_several_files(ess: Ess, ragged: Profile, tmp_path: Path) -> None:
    for name in ("a", "b"):
        ragged.save(tmp_path / name)

    result = ess("report", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "r.html")

    assert result.exit_code == 0, result.stderr
    assert "tiny (1) and tiny (2)" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 3),
        (grpc.StatusCode.NOT_FOUND, 4),
        (grpc.StatusCode.FAILED_PRECONDITION, 4),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 5),
        (grpc.StatusCode.UNAVAILABLE, 6),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 7),
        (grpc.StatusCode.INTERNAL, 8),
        (grpc.StatusCode.DATA_LOSS, 8),
        (grpc.StatusCode.UNIMPLEMENTED, 9),
    ],
)
def test_a_failed_call_is_one_line_and_an_exit_code(
    ess: Ess, server: ReplayServer, code: grpc.StatusCode, exit_code: int
) -> None:
    server.failure = (code, "the reason")

    result = ess("profile", "--model", "tiny", "--prompt", "a", "--retries", "0")

    assert result.exit_code == exit_code
    assert result.stderr == f"ess: {code.name}: the reason\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        (("profile",), 2, "--model"),
        (("profile", "--model", "m"), 3, "no prompts"),
        (("profile", "--model", "m", "--prompts", "absent.jsonl"), 10, "absent.jsonl: No such"),
        (("profile", "--model", "m", "--token-ids", "1,x"), 3, "'1,x' is not like 1,2,3"),
        (("profile", "--model", "m", "--prompt", "a", "--measure", "rank"), 3, "unknown measure"),
        (("profile", "--model", "m", "--gaussian", "8,512"), 3, "not like count=8,length=512"),
        (("profile", "--model", "m", "--gaussian", "size=8"), 3, "a field 'size'"),
        (("profile", "--model", "m", "--gaussian", "length=8", "--prompt", "a"), 3, "one of the"),
        (("profile", "--model", "m", "--prompt", "a", "--reduce", "x"), 2, "heads"),
        (("operators", "absent.npz"), 10, "absent.npz: No such"),
        (("operators", "absent.npz", "-o", "x.json"), 3, "a .npz file"),
        (("report", "absent.safetensors", "-o", "r.html"), 10, "absent.safetensors"),
        (("export", "absent.safetensors", "-o", "x.json"), 3, "a .csv file"),
        (("models", "list", "--server", "127.0.0.1:1"), 6, "127.0.0.1:1"),
    ],
)
def test_a_wrong_command_says_why(
    ess: Ess, arguments: tuple[str, ...], exit_code: int, reason: str
) -> None:
    result = ess(*arguments)

    assert result.exit_code == exit_code
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_a_malformed_line_of_prompts_is_named(ess: Ess, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')

    result = ess("profile", "--model", "m", "--prompts", lines)

    assert result.exit_code == 3
    assert "line 2: needs text or token_ids" in result.stderr


def test_an_interrupt_stops_the_call_with_its_own_exit_code(
    server: ReplayServer, ragged: Profile
) -> None:
    server.responses = list(messages_of(ragged))
    server.hold = threading.Event()
    command = [sys.executable, "-c", "from ess_client.cli.main import app; app()"]
    command += ["profile", "--model", "tiny", "--prompt", "a", "--server", server.address]

    # A shell's background job ignores interrupts, and its children inherit that.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert server.started.wait(30)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        stopped = server.ended.wait(10)
        server.hold.set()

    assert process.returncode == 130
    assert stderr.endswith("ess: interrupted\n")
    assert stopped


def test_help_lists_the_exit_codes_and_version_prints_it(ess: Ess) -> None:
    assert "130 interrupted" in " ".join(ess("--help").stdout.split())
    assert ess("--version").stdout == f"ess {ess_client.__version__}\n"
