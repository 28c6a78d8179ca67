"""Ranks of all Hankel blocks by tvsclib, if it is importable.

tvsclib (https://github.com/MatthiasKi/tvsclib) is a library for time-varying systems and no part of
this repository. To run it, clone it beside, install numpy and scipy, and put its folder on
PYTHONPATH. Without it, this says so and exits with 0.

Prints the numbers of tvsclib_oracle_test.cc. paper_loop_benchmark.py times it.
"""

from __future__ import annotations

from collections.abc import Callable

TOLERANCES = (0.5, 0.1, 0.001)
Entry = Callable[[int, int], float]


def tables() -> dict[str, tuple[int, Entry]]:
    """The operators of the table: length and T[i, j] for j < i, exact binary fractions."""

    def dense(i: int, j: int) -> float:
        return ((7 * i + 3 * j * j + i * j) % 11 - 5) / 8

    def window(i: int, j: int) -> float:
        return ((5 * i + 7 * j * j + 2) % 9 + 1) / 16 if i - j < 5 else 0.0

    def sinks(i: int, j: int) -> float:
        return ((3 * i + 5 * j * j + i * j) % 7 - 2) / 4 if i - j < 4 or j < 2 else 0.0

    def taps(i: int, j: int) -> float:
        return (0.0, 1.0, -0.5, 0.25, 2.0)[i - j] if i - j < 5 else 0.0

    def shift(i: int, j: int) -> float:
        return float(i - j == 3)

    def recurrence(i: int, j: int) -> float:
        total = 0.0
        for n in range(3):
            product = ((3 * i + n) % 7 - 3) / 4 * ((j + 2 * n) % 5 - 2) / 2
            for t in range(j + 1, i + 1):
                product *= ((t * (n + 2)) % 4 + 4) / 8
            total += product
        return total

    return {
        "dense": (16, dense),
        "window": (24, window),
        "sinks": (20, sinks),
        "convolution": (18, taps),
        "shift": (12, shift),
        "recurrence": (24, recurrence),
    }


def print_table() -> None:
    import numpy as np
    from tvsclib.approximation import Approximation
    from tvsclib.identification import identify_causal
    from tvsclib.stage import Stage
    from tvsclib.strict_system import StrictSystem

    for name, (length, entry) in tables().items():
        matrix = np.array(
            [[entry(i, j) if j < i else 0.0 for j in range(length)] for i in range(length)]
        )
        ones = [1] * length
        # The state remembers every input; tvsclib reduces it to an ordered minimal realization,
        # whose singular values are those of the Hankel blocks. No block is ever formed.
        stages = [
            Stage(
                np.vstack([np.eye(k), np.zeros((1, k))]),
                np.vstack([np.zeros((k, 1)), np.ones((1, 1))]),
                matrix[k : k + 1, :k],
                np.zeros((1, 1)),
            )
            for k in range(length)
        ]
        stages[-1].A_matrix = np.zeros((0, length - 1))
        stages[-1].B_matrix = np.zeros((0, 1))
        sigmas = Approximation(StrictSystem(causal=True, stages=stages)).sigmas_causal
        print(f"{name}:")
        for tolerance in TOLERANCES:
            system, _ = identify_causal(matrix, ones, ones, tolerance, compute_sigmas=True)
            ranks = [int(rank) for rank in system.dims_state[:length]]
            counts = [int((s > tolerance).sum()) for s in sigmas]
            assert ranks[1:] == counts, (name, tolerance, ranks, counts)
            print(f"  ranks at {tolerance}: {ranks}")
        shares = [s / s.sum() for s in sigmas]
        entropies = [np.exp(-np.sum(p * np.log(p))) for p in shares]
        print(f"  norms: {', '.join(f'{float(s[0]):.12g}' for s in sigmas)}")
        print(f"  entropies: {', '.join(f'{float(e):.12g}' for e in entropies)}")


def main() -> None:
    try:
        import tvsclib.identification  # noqa: F401
    except ImportError as error:
        print(f"tvsclib cannot be run here: {error}")
        return
    print_table()


if __name__ == "__main__":
    main()
