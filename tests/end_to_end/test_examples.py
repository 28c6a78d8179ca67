"""The scripts of client/examples, as people run them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .server_process import ROOT, ServerProcess

SCRIPT = ROOT / "client" / "examples" / "tritonclient_ess.py"


@pytest.fixture(scope="module")
def demo_server():
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_demo_model"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(made.stdout.strip())
    with ServerProcess(f"--model_root={folder.parent}", f"--preload={folder.name}") as process:
        yield process


def test_tritonclient_alone_gets_ess_of_the_demo_model(demo_server):
    done = subprocess.run(
        [sys.executable, SCRIPT, demo_server.address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"layer {i:03}" for i in range(30)]
    means = [float(line.split()[4]) for line in lines]
    assert all(0 < mean < 10 for mean in means)


def test_the_script_is_short_and_needs_nothing_of_ours():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 20
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"sys", "numpy", "tritonclient"}
