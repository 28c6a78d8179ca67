"""Synthetic data to train on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Labels that no loss is taken of: torch.nn.functional.cross_entropy's default.
IGNORED = -100


class Batch(NamedTuple):
    """What a position sees, and what it should answer."""

    token_ids: Tensor  # int64 [B, L]
    labels: Tensor  # int64 [B, L]; IGNORED where nothing is asked.


def mqar_batches(
    *, vocab_size: int, length: int, pairs: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Multi-query associative recall, without end: key-value pairs first, then every key once
    more at a random position, where its value is asked for; token 0 fills the gaps.

    Source: Arora et al. 2023 (arXiv:2312.04927); positions of queries are uniform here. Keys are
    from the lower half of the vocabulary, values from the upper.
    """
    if not 1 <= pairs <= length // 3:
        raise ValueError(f"pairs is {pairs}; with length {length} it is 1 to {length // 3}")
    half = vocab_size // 2
    if pairs > half - 1:
        raise ValueError(f"pairs is {pairs}, but a vocabulary of {vocab_size} has {half - 1} keys")
    generator = torch.Generator().manual_seed(seed)
    while True:
        # Distinct numbers for each row, as places in a random order.
        def choose(count: int, among: int) -> Tensor:
            return torch.rand(batch_size, among, generator=generator).argsort(-1)[:, :count]

        keys = 1 + choose(pairs, half - 1)
        values = torch.randint(half, vocab_size, (batch_size, pairs), generator=generator)
        places = 2 * pairs + choose(pairs, length - 2 * pairs)
        token_ids = torch.zeros(batch_size, length, dtype=torch.int64)
        token_ids[:, 0 : 2 * pairs : 2] = keys
        token_ids[:, 1 : 2 * pairs : 2] = values
        token_ids.scatter_(1, places, keys)
        labels = torch.full_like(token_ids, IGNORED).scatter_(1, places, values)
        yield Batch(token_ids, labels)
