"""What every reader hands on: rows as they stand in the input, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.vocabulary import PackedTokens

BLOCK_BYTES = 1 << 21
"""Bytes of an input that are read and decoded at a time."""

MAX_LINE = 1 << 24
"""Longest line or record, in bytes."""

MAX_DIM = MAX_LINE // 4
MAX_TOKEN = 1 << 16
"""Longest token of a word2vec binary file, where only a space tells its end."""


class RecordChunk(NamedTuple):
    """Consecutive rows of an input, nothing dropped but malformed ones."""

    tokens: PackedTokens | None
    """The tokens as they stand in the input, valid UTF-8 or not; None where there are none."""
    vectors: NDArray[np.float32]
    """float32 ``[m, dim]``; finite or not."""
    numbers: NDArray[np.int64]
    """int64 ``[m]``: where each row stands, counted in the reader's unit."""

    def select(self, rows: NDArray[np.intp] | slice) -> RecordChunk:
        """Return the chunk with these rows alone, given in increasing order."""
        tokens = None if self.tokens is None else select_tokens(self.tokens, rows)
        return RecordChunk(tokens, self.vectors[rows], self.numbers[rows])


class Records(Protocol):
    """One format's reader, over an open stream."""

    unit: str
    """What `RecordChunk.numbers` count: "line", "record" or "row"."""
    dim: int
    rows: int | None
    """Rows of the input where its header says so."""

    def chunks(self) -> Iterator[RecordChunk]:
        """Read the input to its end, once."""
        ...


def select_tokens(tokens: PackedTokens, rows: NDArray[np.intp] | slice) -> PackedTokens:
    """Return the packed tokens at these positions, given in increasing order."""
    lengths = np.diff(tokens.offsets)
    kept = np.zeros(len(lengths), np.bool_)
    kept[rows] = True
    begin, end = tokens.offsets[0], tokens.offsets[-1]
    buf = tokens.buf[begin:end][np.repeat(kept, lengths)]
    return PackedTokens(buf, _offsets(lengths[kept]))


def pack(tokens: list[bytes]) -> PackedTokens:
    """Pack tokens that are bytes already."""
    return PackedTokens(np.frombuffer(b"".join(tokens), np.uint8), _offsets([len(token) for token in tokens]))


def check_dim(name: str, dim: int) -> None:
    """Raise InputError unless vectors may have `dim` values."""
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{name} has vectors of {dim} values, expected 1 to {MAX_DIM:,}.")


def _offsets(lengths: NDArray[np.int64] | list[int]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
