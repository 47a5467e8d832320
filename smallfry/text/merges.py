"""The merges of byte pair encoding, and their hash table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError

PROBES = 64
"""Slots that a lookup reads at most."""

_DOUBLINGS = 4
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def read_merges(merges: Sequence[Sequence[str]], vocabulary: Mapping[str, int]) -> NDArray[np.uint32]:
    """Return left, right and merged token of each merge by rank, uint32 ``[merges, 3]``.

    Parameters
    ----------
    merges : sequence of pairs of str
        Of a ``tokenizer.json`` that ``tokenizers`` has read, which ensures that they and what they make
        are tokens.
    vocabulary : mapping of str to int
        The id of each token.
    """
    ids = [vocabulary[token] for left, right in merges for token in (left, right, left + right)]
    return np.array(ids, np.uint32).reshape(-1, 3)


def build_merge_index(merges: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the hash table of `docs/reference/format.md` from pairs of tokens to merges, uint32 ``[slots]``.

    Raises
    ------
    InputError
        The pairs are chosen to collide.
    """
    pairs = _pairs(merges)
    least = max(1, (2 * len(pairs)).bit_length())
    for bits in range(least, least + _DOUBLINGS):
        index = _fill(pairs, bits)
        if index is not None:
            return index
    raise InputError(f"the {len(pairs):,} merges collide in a hash table of {1 << bits:,} slots.")


def find_merges(merges: NDArray[np.uint32], index: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the rank to which the index leads from the pair of each merge, -1 if none."""
    pairs = _pairs(merges)
    found = np.full(len(pairs), -1)
    left, slots = np.arange(len(pairs)), _homes(pairs, len(index).bit_length() - 1)
    for _ in range(PROBES):
        ranks = index[slots].astype(np.int64) - 1
        equal = (ranks >= 0) & (ranks < len(pairs))
        equal[equal] = pairs[ranks[equal]] == pairs[left[equal]]
        found[left[equal]] = ranks[equal]
        missed = (ranks >= 0) & ~equal
        left, slots = left[missed], (slots[missed] + 1) % len(index)
    return found


def _pairs(merges: NDArray[np.uint32]) -> NDArray[np.uint64]:
    pairs: NDArray[np.uint64] = merges[:, 0].astype(np.uint64) << np.uint64(32) | merges[:, 1]
    return pairs


def _homes(pairs: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    return (pairs * _FACTOR >> np.uint64(64 - bits)).astype(np.int64)


def _fill(pairs: NDArray[np.uint64], bits: int) -> NDArray[np.uint32] | None:
    """Return the table with ``2**bits`` slots; None if a pair is more than `PROBES` slots from its home."""
    index = np.zeros(1 << bits, np.uint32)
    slots = _homes(pairs, bits)
    ranks = np.arange(len(pairs))
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
