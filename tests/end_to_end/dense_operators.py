"""Operators of every class with their dense form, by the definitions of docs/client.md."""

import numpy as np

from ess_client import (
    BandedOperator,
    Convolution,
    DeltaRecurrence,
    DenseOperator,
    DiagonalPlusRankOne,
    DiagonalRecurrence,
    GeneralRecurrence,
)

L, N = 14, 3


def scan(transitions, inputs, outputs, read):
    """T[i, j] = c_i A_i ... A_{j+1} b_j; read before: c_i A_{i-1} ... A_{j+1} b_j, 0 at i = j."""
    length = len(inputs)
    dense = np.zeros((length, length), complex)
    for j in range(length):
        state = inputs[j].astype(complex)
        for i in range(j, length):
            if i > j and read == "before":
                dense[i, j] = outputs[i] @ state
            if i > j:
                state = transitions[i] @ state
            if read == "after":
                dense[i, j] = outputs[i] @ state
    return dense.real


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def dense(read):
    matrix = np.tril(normal(0, L, L))
    return DenseOperator(matrix), matrix


def diagonal(read):
    a, b, c = sigmoid(normal(1, L, N) + 2), normal(2, L, N), normal(3, L, N)
    return DiagonalRecurrence(a, b, c, read), scan([np.diag(x) for x in a], b, c, read)


def scalar_gate(read):
    a, b, c = sigmoid(normal(1, L, 1) + 2), normal(2, L, N), normal(3, L, N)
    return DiagonalRecurrence(a, b, c, read), scan([x * np.eye(N) for x in a], b, c, read)


def complex_diagonal(read):
    a = sigmoid(normal(1, L, N) + 2) * np.exp(1j * normal(4, L, N))
    b, c = normal(2, L, N) + 1j * normal(5, L, N), normal(3, L, N) + 0j
    return DiagonalRecurrence(a, b, c, read), scan([np.diag(x) for x in a], b, c, read)


def delta(read):
    alpha, beta = sigmoid(normal(1, L) + 2), sigmoid(normal(2, L))
    k = normal(3, L, N)
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    c = normal(4, L, N)
    transitions = [
        x * (np.eye(N) - y * np.outer(z, z)) for x, y, z in zip(alpha, beta, k, strict=True)
    ]
    return DeltaRecurrence(alpha, beta, k, c, read), scan(transitions, beta[:, None] * k, c, read)


def rank_one(read):
    w, p, q = sigmoid(normal(1, L, N) + 2), 0.3 * normal(2, L, N), 0.3 * normal(3, L, N)
    k, c = normal(4, L, N), normal(5, L, N)
    transitions = [np.diag(x) + np.outer(y, z) for x, y, z in zip(w, p, q, strict=True)]
    return DiagonalPlusRankOne(w, p, q, k, c, read), scan(transitions, k, c, read)


def general(read):
    transitions = 0.5 * normal(1, L, N, N)
    b, c = normal(2, L, N), normal(3, L, N)
    return GeneralRecurrence(transitions, b, c, read), scan(transitions, b, c, read)


def convolution(read):
    h = normal(1, L) * 0.8 ** np.arange(L)
    i, j = np.indices((L, L))
    return Convolution(h), np.where(i >= j, h[i - j], 0)


def gated_convolution(read):
    h, gate_out, gate_in = normal(1, L), normal(2, L), normal(3, L)
    i, j = np.indices((L, L))
    matrix = gate_out[:, None] * np.where(i >= j, h[i - j], 0) * gate_in
    return Convolution(h, gate_out, gate_in), matrix


def short_filter(read):
    """Fewer taps than its gates have positions."""
    h, gate_in = normal(1, 5), normal(3, L)
    i, j = np.indices((L, L))
    matrix = np.where((i >= j) & (i - j < 5), h[np.clip(i - j, 0, 4)], 0) * gate_in
    return Convolution(h, gate_in=gate_in), matrix


def banded(read):
    band = normal(1, L, 4)
    matrix = np.zeros((L, L))
    for i in range(L):
        for d in range(min(4, i + 1)):
            matrix[i, i - d] = band[i, d]
    return BandedOperator(_inside(band)), matrix


def banded_with_sinks(read):
    band, sinks = normal(1, L, 3), normal(2, L, 2)
    matrix = np.zeros((L, L))
    for i in range(L):
        matrix[i, :2] = np.where(np.arange(2) <= i, sinks[i], 0)
        for d in range(min(3, i + 1)):
            matrix[i, i - d] = band[i, d]
    i, j = np.indices(sinks.shape)
    return BandedOperator(_inside(band), np.where(j <= i, sinks, 0)), matrix


def _inside(band):
    """Without the entries left of column 0."""
    i, d = np.indices(band.shape)
    return np.where(d <= i, band, 0)


# Name -> (function of the read order, read orders, TSS by position).
CLASSES = {
    "dense": (dense, ["after"], lambda i: i),
    "diagonal": (diagonal, ["after", "before"], lambda i: N),
    "scalar gate": (scalar_gate, ["after", "before"], lambda i: N),
    "complex diagonal": (complex_diagonal, ["after", "before"], lambda i: 2 * N),
    "delta": (delta, ["after", "before"], lambda i: N),
    "diagonal plus rank one": (rank_one, ["after", "before"], lambda i: N),
    "general": (general, ["after", "before"], lambda i: N),
    "convolution": (convolution, ["after"], lambda i: min(i, L - 1)),
    "gated convolution": (gated_convolution, ["after"], lambda i: min(i, L - 1)),
    "short filter": (short_filter, ["after"], lambda i: min(i, 4)),
    "banded": (banded, ["after"], lambda i: min(i, 3)),
    "banded with sinks": (banded_with_sinks, ["after"], None),
}
CASES = [(name, read) for name, (_, reads, _) in CLASSES.items() for read in reads]
