"""Offsets of items of different lengths that are stored one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError

MAX_HEADS = 1 << 16

Offsets: TypeAlias = NDArray[np.int64] | NDArray[np.uint32] | NDArray[np.uint64]


def offsets_of(lengths: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where each of n items begins, and where the last one ends: int64 [n + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def check_heads(offsets: NDArray[np.integer], rows: int) -> None:
    """Raise InputError unless the offsets cut `rows` rows into at most `MAX_HEADS` heads."""
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise InputError(
            f"head_offsets is {offsets.dtype} {list(offsets.shape)}, expected integers [heads + 1]."
        )
    if not 2 <= offsets.size <= MAX_HEADS + 1:
        raise InputError(f"head_offsets has {offsets.size} values, expected 2 to {MAX_HEADS + 1}.")
    if offsets[0] != 0 or int(offsets[-1]) != rows or (offsets[1:] < offsets[:-1]).any():
        raise InputError(f"head_offsets does not increase from 0 to the number of rows, {rows}.")
