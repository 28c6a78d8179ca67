"""The paper's way, as one would write it in Python, against this product as one would use it.

The loop: singular values of T[i:, :i] at every i, by numpy and by torch, float64, one thread. Ours:
Client.profile_operators on a server with one thread; its time includes sending the matrix and
receiving the answers. tvsclib (tvsclib_oracle.py) runs beside where it can be imported; it always
computes the anticausal blocks as well, so half of its time is counted. All take turns in one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # Before numpy is imported.

import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ess_client import Client  # noqa: E402
from ess_client.operators import (  # noqa: E402
    DeltaRecurrence,
    DenseOperator,
    DiagonalRecurrence,
    Operator,
)
from tests.end_to_end.server_process import ServerProcess  # noqa: E402

TOLERANCE = 1e-3
LARGEST_FOR_TVSCLIB = 512  # Beyond, it takes minutes.


def random_attention(length: int) -> tuple[Operator, np.ndarray]:
    generator = np.random.default_rng(length)
    queries, keys = generator.normal(size=(2, length, 64))
    logits = np.where(np.tri(length, dtype=bool), queries @ keys.T / 8, -np.inf)
    matrix = np.exp(logits - logits.max(axis=1, keepdims=True))
    matrix /= matrix.sum(axis=1, keepdims=True)
    return DenseOperator(T=matrix), matrix


def gated_linear_attention(length: int) -> tuple[Operator, np.ndarray]:
    generator = np.random.default_rng(length)
    a = (1 / (1 + np.exp(-generator.normal(size=(length, 64))))) ** (1 / 16)
    b, c = generator.normal(size=(2, length, 64)) / 8
    matrix = np.zeros((length, length))
    states = np.zeros((length, 64))  # Of an impulse at each earlier position.
    for i in range(length):
        states[:i] *= a[i]
        states[i] = b[i]
        matrix[i, : i + 1] = states[: i + 1] @ c[i]
    return DiagonalRecurrence(a=a, b=b, c=c), matrix


def delta_net(length: int) -> tuple[Operator, np.ndarray]:
    generator = np.random.default_rng(length)
    k, c = generator.normal(size=(2, length, 64))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    beta = 1 / (1 + np.exp(-generator.normal(size=length)))
    matrix = np.zeros((length, length))
    states = np.zeros((length, 64))
    for i in range(length):
        states[:i] -= np.outer(states[:i] @ k[i], beta[i] * k[i])
        states[i] = beta[i] * k[i]
        matrix[i, : i + 1] = states[: i + 1] @ c[i]
    return DeltaRecurrence(alpha=np.ones(length), beta=beta, k=k, c=c), matrix


OPERATORS = {
    "attention": random_attention,
    "GLA n=64": gated_linear_attention,
    "DeltaNet n=64": delta_net,
}


def with_numpy(matrix: np.ndarray) -> list[int]:
    return [
        int((np.linalg.svd(matrix[i:, :i], compute_uv=False) > TOLERANCE).sum())
        for i in range(1, len(matrix))
    ]


def with_torch(matrix: np.ndarray) -> list[int]:
    operator = torch.from_numpy(matrix)
    return [
        int((torch.linalg.svdvals(operator[i:, :i]) > TOLERANCE).sum())
        for i in range(1, len(operator))
    ]


def tvsclib_ranks() -> Callable[[np.ndarray], list[int]] | None:
    """None where it cannot be imported."""
    try:
        from tvsclib.math import extract_sigmas
    except ImportError:
        return None

    def ranks(matrix: np.ndarray) -> list[int]:
        ones = [1] * len(matrix)
        causal, _ = extract_sigmas(matrix, ones, ones)
        return [int((sigma > TOLERANCE).sum()) for sigma in causal]

    return ranks


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to 512 positions")
    lengths = (256, 512) if parser.parse_args().quick else (256, 512, 1024)
    torch.set_num_threads(1)
    tvsclib = tvsclib_ranks()
    print(
        f"counts above {TOLERANCE} at every position of one operator, seconds, one thread; ours "
        "through the client"
    )
    if tvsclib is None:
        print("tvsclib is not on PYTHONPATH: no column of its own (tvsclib_oracle.py)")
    print(
        f"{'operator':14} {'L':>5} {'ours':>8} {'numpy':>9} {'ratio':>7} {'torch':>9} {'ratio':>7} "
        f"{'tvsclib':>9} {'ratio':>7}  differ"
    )
    with (
        ServerProcess("--threads=1", "--device=cpu") as server,
        Client(server.address, timeout=1200) as client,
    ):
        for name, make in OPERATORS.items():
            for length in lengths:
                operator, matrix = make(length)
                ours_seconds = float("inf")
                loops = {"numpy": with_numpy, "torch": with_torch}
                if tvsclib is not None and length <= LARGEST_FOR_TVSCLIB:
                    loops["tvsclib"] = tvsclib
                cells = []
                differ = 0
                for loop in loops.values():
                    for _ in range(5):
                        seconds, result = timed(
                            lambda operator=operator: client.profile_operators(
                                operator, measures=f"tolerance:{TOLERANCE}"
                            )
                        )
                        ours_seconds = min(ours_seconds, seconds)
                    loop_seconds, counts = timed(lambda loop=loop, matrix=matrix: loop(matrix))
                    cells.append(loop_seconds)
                    differ += int((result.ess.values.reshape(-1)[1:] != np.array(counts)).sum())
                if "tvsclib" in loops:
                    cells[2] /= 2
                columns = " ".join(
                    f"{seconds:9.3f} {seconds / ours_seconds:6.0f}x" for seconds in cells
                )
                columns += f" {'-':>9} {'-':>7}" * (3 - len(cells))
                print(
                    f"{name:14} {length:5d} {ours_seconds:8.4f} {columns}  "
                    f"{differ}/{len(cells) * (length - 1)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
