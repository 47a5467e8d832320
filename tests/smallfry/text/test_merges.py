"""The table of merges, and its index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry.errors import InputError
from smallfry.text.merges import PROBES, build_merge_index, find_merges, read_merges

FACTOR = 0x9E3779B97F4A7C15


def find(merges: np.ndarray, index: np.ndarray, left: int, right: int) -> int | None:
    """Return the rank of a pair, as `docs/reference/format.md` describes."""
    bits = len(index).bit_length() - 1
    home = ((left << 32 | right) * FACTOR % (1 << 64)) >> (64 - bits)
    for probe in range(PROBES):
        rank = int(index[(home + probe) % len(index)]) - 1
        if rank < 0:
            return None
        if merges[rank, :2].tolist() == [left, right]:
            return rank
    return None


def test_merges_are_ids() -> None:
    vocabulary = {"a": 3, "b": 1, "ab": 2, "aab": 0}
    merges = read_merges([["a", "b"], ["a", "ab"]], vocabulary)
    assert merges.dtype == np.uint32
    assert merges.tolist() == [[3, 1, 2], [3, 2, 0]]


def test_no_merges() -> None:
    merges = read_merges([], {})
    assert merges.shape == (0, 3)
    assert build_merge_index(merges).tolist() == [0, 0]


@given(st.sets(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1), st.integers(0, 1 << 31))
def test_every_merge_is_found_and_nothing_else(pairs: set[tuple[int, int]], offset: int) -> None:
    merges = np.array([(left + offset, right, 0) for left, right in pairs], np.uint32)
    index = build_merge_index(merges)
    assert len(index).bit_count() == 1
    assert np.count_nonzero(index) == len(pairs) < len(index)
    for left in range(41):
        for right in range(0, 41, 5):
            rank = find(merges, index, left + offset, right)
            assert (rank is not None) == ((left, right) in pairs)
    for rank, (left, right, _) in enumerate(merges.tolist()):
        assert find(merges, index, left, right) == rank
    assert find_merges(merges, index).tolist() == [*range(len(pairs))]


def test_an_index_that_leads_elsewhere() -> None:
    merges = np.array([(0, 1, 2), (1, 1, 2), (0, 1, 2)], np.uint32)
    assert find_merges(merges, np.zeros(4, np.uint32)).tolist() == [-1, -1, -1]
    assert find_merges(merges, np.full(64, 1, np.uint32)).tolist() == [0, -1, 0]
    assert find_merges(merges, np.full(1, 9, np.uint32)).tolist() == [-1, -1, -1]


def test_pairs_with_one_home_are_rejected() -> None:
    # Pairs with one home: their products with the factor begin with zeros.
    inverse = pow(FACTOR, -1, 1 << 64)
    pairs = [product * inverse % (1 << 64) for product in range(1, 3 * PROBES)]
    merges = np.array([(pair >> 32, pair & 0xFFFFFFFF, 0) for pair in pairs], np.uint32)
    with pytest.raises(InputError, match="191 merges collide"):
        build_merge_index(merges)
