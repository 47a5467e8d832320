"""The merges of byte pair encoding, and their hash table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError, shorten

PROBES = 64
"""Slots that a lookup reads at most."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def read_merges(merges: Sequence[Any], vocabulary: Mapping[str, int]) -> NDArray[np.uint32]:
    """Return left, right and merged token of each merge by rank, uint32 ``[merges, 3]``.

    Parameters
    ----------
    merges : sequence
        Of a ``tokenizer.json``: strings ``"left right"``, or pairs of tokens.
    vocabulary : mapping of str to int
        The id of each token.

    Raises
    ------
    InputError
        A merge is not two tokens, or one of them, or what they make, is not in the vocabulary.
    """
    ids = np.empty((len(merges), 3), np.uint32)
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InputError(f"merge {rank} is {shorten(merge)}, expected two tokens.")
        left, right = pair
        for token in (left, right, left + right):
            if token not in vocabulary:
                raise InputError(
                    f"merge {rank} of {shorten(left)} and {shorten(right)} needs the token {shorten(token)}, "
                    "which is not in the vocabulary."
                )
        ids[rank] = vocabulary[left], vocabulary[right], vocabulary[left + right]
    return ids


def build_merge_index(merges: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the hash table from a pair of tokens to its merge, uint32 ``[slots]``; see `docs/format.md`.

    Of equal pairs, the last one counts.
    """
    pairs = merges[:, 0].astype(np.uint64) << np.uint64(32) | merges[:, 1]
    _, from_end = np.unique(pairs[::-1], return_index=True)
    ranks = len(pairs) - 1 - from_end
    bits = max(1, (2 * len(ranks)).bit_length())
    while True:
        index = _fill(pairs[ranks], ranks, bits)
        if index is not None:
            return index
        bits += 1


def _fill(pairs: NDArray[np.uint64], ranks: NDArray[np.int64], bits: int) -> NDArray[np.uint32] | None:
    """Return the table with ``2**bits`` slots; None if a pair is more than `PROBES` slots from its home."""
    index = np.zeros(1 << bits, np.uint32)
    slots = (pairs * _FACTOR >> np.uint64(64 - bits)).astype(np.int64)
    for _ in range(PROBES):
        free = np.flatnonzero(index[slots] == 0)
        _, first = np.unique(slots[free], return_index=True)
        placed = free[first]
        index[slots[placed]] = ranks[placed] + 1
        left = np.delete(np.arange(len(ranks)), placed)
        if not len(left):
            return index
        slots, ranks = (slots[left] + 1) % len(index), ranks[left]
    return None
