"""The linear-attention families against flash-linear-attention, which fla_reference.py runs in a
process of its own: its layers on the CPU, with its naive recurrences in place of its kernels."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import model_parity
import numpy as np
import pytest
import test_initial_weights
from fla_cases import BASE, CASES, RAGGED, RWKV, START_BASE, STARTS
from safetensors.numpy import load_file, save_file


class Reference:
    """The process that runs fla."""

    def __init__(self) -> None:
        script = pathlib.Path(__file__).with_name("fla_reference.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that runs fla has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    started = Reference()
    yield started
    started.close()


def public_run(
    reference: Reference, layer_count: int
) -> Callable[[pathlib.Path, list[int]], tuple[np.ndarray, list[np.ndarray]]]:
    def run(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        out = folder / "reference.safetensors"
        reference.ask(run=str(folder), prompt=prompt, out=str(out))
        tensors = load_file(out)
        return tensors["logits"], [tensors[f"operator.{layer}"] for layer in range(layer_count)]

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_model_equals_flash_linear_attention(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    reference: Reference,
) -> None:
    seed = 500 + list(CASES).index(case)
    config = {**BASE, **CASES[case], "model_type": case.split(",")[0]}
    scale = config.pop("weights", 0.35)
    reference.ask(make=str(tmp_path), config=config, seed=seed, scale=scale)
    prompts = model_parity.random_prompts(RAGGED, config["vocab_size"], seed)

    row = model_parity.compare(
        case, tmp_path, prompts, run=public_run(reference, config["num_hidden_layers"])
    )

    record_row(row)
    model_parity.check(row)


def test_older_files_of_rwkv7_keep_their_shifts_in_one_tensor(
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    reference: Reference,
) -> None:
    config = {**BASE, **RWKV, "model_type": "rwkv7"}
    reference.ask(make=str(tmp_path), config=config, seed=600, scale=0.35)
    older = tmp_path / "older"
    older.mkdir()
    shutil.copy(tmp_path / "config.json", older)
    tensors = load_file(tmp_path / "model.safetensors")
    for layer in range(config["num_hidden_layers"]):
        attn = f"model.layers.{layer}.attn."
        shifts = [
            tensors.pop(attn + name)[0] for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
        ]
        tensors[attn + "x_x"] = np.concatenate(shifts)
    save_file(tensors, older / "model.safetensors")
    prompts = model_parity.random_prompts(RAGGED, config["vocab_size"], 600)
    run = public_run(reference, config["num_hidden_layers"])

    row = model_parity.compare(
        "rwkv7, shifts in one tensor", older, prompts, run=lambda _, prompt: run(tmp_path, prompt)
    )

    record_row(row)
    model_parity.check(row)


@pytest.mark.parametrize("case", STARTS)
def test_weights_start_as_those_of_flash_linear_attention(
    case: str, tmp_path: pathlib.Path, reference: Reference
) -> None:
    seed = 900 + list(STARTS).index(case)
    config = {**START_BASE, **STARTS[case], "model_type": case.split(",")[0]}
    reference.ask(start=str(tmp_path), config=config, seed=seed)
    ours = test_initial_weights.capture(tmp_path, seed)
    public = {
        name.removeprefix("model."): values
        for name, values in load_file(tmp_path / "model.safetensors").items()
    }

    assert ours.keys() == public.keys()
    pooled = test_initial_weights.pooled(ours)
    for name, values in test_initial_weights.pooled(public).items():
        # A_log, which others count up, is drawn here.
        test_initial_weights.check_same_distribution(f"{name} at the start", pooled[name], values)
