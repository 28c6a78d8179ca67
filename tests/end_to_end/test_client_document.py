"""The recipes of docs/client.md, run as they stand there."""

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys

import pytest

from ess_client import Client, load_profile

from . import tiny_models
from .server_process import ROOT, ServerProcess

DOCUMENT = ROOT / "docs" / "client.md"
PROMPTS = [{"text": f"Sentence {i}. And one more."} for i in range(3)]


def blocks(language):
    """The code of the section "Recipes"."""
    section = re.search(r"^### Recipes$(.*?)^###? ", DOCUMENT.read_text(), re.S | re.M).group(1)
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.S | re.M)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_models.make_llama(root / "smollm2-135m")
    state = tmp_path_factory.mktemp("state")
    with ServerProcess(f"--model_root={root}", f"--state_dir={state}") as process:
        yield process


@pytest.fixture
def environment(server, tmp_path, monkeypatch):
    """Of a user who has only said where the server is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESS_SERVER", server.address)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "client"))
    monkeypatch.setenv("PATH", f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("MPLBACKEND", "agg")


def run_cell(code, names):
    """As a notebook does: `await` at the top level, and the value of the last line."""
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    value = None
    for part, mode in ((tree, "exec"), (last, "eval")):
        if part is not None:
            made = compile(part, "cell", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            value = eval(made, names)  # It is the document's own code.
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
    return value


def test_the_notebook(environment):
    *cells, script = blocks("python")
    assert script.startswith('"""Mean ESS of every layer')
    names = {}

    shown = [run_cell(cell, names) for cell in cells]

    assert "Profile of smollm2-135m" in repr(shown[0])
    assert len(shown[1].patches) == len(names["profile"].layers)
    assert len(shown[2]) == 3
    assert all(value >= 0 for value in shown[2])
    names["client"].close()


def test_the_script(environment, tmp_path):
    (tmp_path / "mean_ess.py").write_text(blocks("python")[-1])
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))

    def run(*arguments):
        command = [sys.executable, "mean_ess.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    result = run("prompts.jsonl", "mean.csv")

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mean.csv").read_text().startswith("measure,layer,")


def test_the_batch_job_that_is_requeued_is_one_job(environment, server, tmp_path, monkeypatch):
    [script] = blocks("bash")
    (tmp_path / "batch.sh").write_text(script)
    (tmp_path / "prompts-2.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")

    def run():
        command = ["bash", "batch.sh"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    first, again = run(), run()

    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert load_profile(tmp_path / "ess-2.safetensors").prompt_ids == ["0", "1", "2"]
    with Client(server.address) as client:
        [job] = [job for job in client.jobs() if job.info.labels == {"slurm": "4711-2"}]
    assert job.id == first.stdout.strip()
