"""Runs a checkpoint through our models and through transformers, and compares both.

The criteria are those of docs/parity.md: logits and operators by their largest difference, counts
of singular values between the public counts at two tolerances around the asked one.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Callable

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CAPTURE_MODEL = REPOSITORY / "build" / "bin" / "capture_model"

# Of each layer in turn, or by the name of the mixing operator.
Operators = list[np.ndarray] | dict[str, np.ndarray]

TOLERANCES = (1e-1, 1e-3)
MAX_RELATIVE_DIFFERENCE = 1e-4
MAX_UNDECIDED_SHARE = 0.05


@dataclasses.dataclass
class ParityRow:
    """What one case showed; one line of the table."""

    case: str
    lengths: list[int]
    logits: float = 0.0  # Largest |ours - public| / largest |public|, over prompts.
    operators: float = 0.0  # The same, over prompts and layers.
    undecided: dict[float, float] = dataclasses.field(default_factory=dict)  # By tolerance.
    outside: dict[float, int] = dataclasses.field(default_factory=dict)  # Counts out of bounds.


def random_weights(model: torch.nn.Module, seed: int, scale: float = 0.35) -> None:
    """Fills a tiny model with weights large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name or ".ln_" in name
            if is_norm and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("A_log"):
                parameter.copy_(noise)  # Rates of decay around 1.
            else:
                parameter.copy_(scale * noise)


def random_prompts(lengths: list[int], vocabulary: int, seed: int) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, vocabulary, length).tolist() for length in lengths]


def run_ours(
    folder: pathlib.Path,
    prompts: list[list[int]] | dict[str, int],
    tolerances: tuple[float, ...],
) -> dict[str, np.ndarray]:
    """All tensors of one batched run, by the names that capture_main.cc documents.

    prompts: token ids; or count, length and seed of Gaussian prompts.
    """
    lines = [json.dumps(prompts)] if isinstance(prompts, dict) else map(json.dumps, prompts)
    prompt_file = folder / "prompts.jsonl"
    prompt_file.write_text("".join(line + "\n" for line in lines))
    out = folder / "ours.safetensors"
    command = [
        str(CAPTURE_MODEL),
        str(folder),
        str(prompt_file),
        str(out),
        "--threads=2",
    ]
    command += [f"--measure=tolerance:{tolerance}" for tolerance in tolerances]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(out)


def run_public(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [L, V] and attention maps [H, L, L] by layer that attends; the model is fresh for each
    prompt, because dynamic rotary frequencies remember the longest prompt seen."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        output = model(torch.tensor([prompt]), output_attentions=True, use_cache=False)
    operators = [maps[0].numpy() for maps in output.attentions or ()]
    check_not_uniform(operators)
    return output.logits[0].numpy(), operators


def check_not_uniform(operators: list[np.ndarray]) -> None:
    """A uniform map would hide wrong positions, scales and head orders."""
    for maps in operators:
        length = maps.shape[-1]
        assert length < 8 or maps[:, -1].max() > 3 / length


def relative_difference(ours: np.ndarray, public: np.ndarray) -> float:
    assert ours.shape == public.shape
    return float(np.abs(ours - public).max() / np.abs(public).max())


def compare_counts(
    counts: np.ndarray, ours: np.ndarray, public: np.ndarray, tolerance: float
) -> tuple[int, int, int]:
    """Counts [H, L] of ours against the singular values of the public operators [H, L, L].

    Returns (positions compared, positions where the two bounds differ, counts out of bounds).
    """
    compared = undecided = outside = 0
    heads, length = counts.shape
    for head in range(heads):
        for position in range(1, length):
            block = public[head, position:, :position].astype(np.float64)
            ours_block = ours[head, position:, :position].astype(np.float64)
            slack = 1e-4 * tolerance + np.linalg.norm(ours_block - block)
            sigma = np.linalg.svd(block, compute_uv=False)
            fewest = int((sigma > tolerance + slack).sum())
            most = int((sigma > tolerance - slack).sum())
            compared += 1
            undecided += fewest != most
            outside += not fewest <= counts[head, position] <= most
    return compared, undecided, outside


def compare(
    case: str,
    folder: pathlib.Path,
    prompts: list[list[int]],
    tolerances: tuple[float, ...] = TOLERANCES,
    run: Callable[[pathlib.Path, list[int]], tuple[np.ndarray, Operators]] = run_public,
) -> ParityRow:
    """`run` gives the public logits [L, V] and operators [H, L, L] of one prompt."""
    ours = run_ours(folder, prompts, tolerances)
    row = ParityRow(case, [len(prompt) for prompt in prompts])
    totals = {tolerance: np.zeros(3, dtype=int) for tolerance in tolerances}
    for index, prompt in enumerate(prompts):
        logits, operators = run(folder, prompt)
        row.logits = max(row.logits, relative_difference(ours[f"prompt.{index}.logits"], logits))
        if isinstance(operators, list):
            operators = {f"{layer:03}": maps for layer, maps in enumerate(operators)}
        mixers = [key for key in ours if key.startswith(f"prompt.{index}.") and "operator" in key]
        assert len(mixers) == len(operators)
        for name, public in operators.items():
            prefix = f"prompt.{index}.{name}."
            mine = ours[prefix + "operator"]
            row.operators = max(row.operators, relative_difference(mine, public))
            for tolerance in tolerances:
                counts = ours[f"{prefix}tolerance:{tolerance}"]
                totals[tolerance] += compare_counts(counts, mine, public, tolerance)
    for tolerance, (compared, undecided, outside) in totals.items():
        row.undecided[tolerance] = undecided / max(compared, 1)
        row.outside[tolerance] = int(outside)
    return row


def check(row: ParityRow) -> None:
    """Asserts the criteria of docs/parity.md."""
    assert row.logits <= MAX_RELATIVE_DIFFERENCE, row
    assert row.operators <= MAX_RELATIVE_DIFFERENCE, row
    assert all(outside == 0 for outside in row.outside.values()), row
    assert all(share < MAX_UNDECIDED_SHARE for share in row.undecided.values()), row
