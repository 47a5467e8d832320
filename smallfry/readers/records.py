"""What every reader hands on: rows as they stand in the input, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import offsets_of
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

    def select(self, rows: NDArray[np.bool_]) -> RecordChunk:
        """Return the chunk with the rows alone that are True."""
        tokens = None if self.tokens is None else select_tokens(self.tokens, rows)
        return RecordChunk(tokens, self.vectors[rows], self.numbers[rows])

    def head(self, count: int) -> RecordChunk:
        """Return the chunk with its first rows alone."""
        tokens = None if self.tokens is None else slice_tokens(self.tokens, 0, count)
        return RecordChunk(tokens, self.vectors[:count], self.numbers[:count])


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


def select_tokens(tokens: PackedTokens, rows: NDArray[np.bool_]) -> PackedTokens:
    """Return the packed tokens that are True, of those that fill `tokens.buf`."""
    lengths = np.diff(tokens.offsets)
    return PackedTokens(tokens.buf[np.repeat(rows, lengths)], offsets_of(lengths[rows]))


def slice_tokens(tokens: PackedTokens, begin: int, end: int) -> PackedTokens:
    """Return the packed tokens from `begin` up to `end`, without a copy of their bytes."""
    offsets = tokens.offsets[begin : end + 1]
    return PackedTokens(tokens.buf[offsets[0] : offsets[-1]], offsets - offsets[0])


def join_tokens(parts: Sequence[PackedTokens]) -> PackedTokens:
    """Return packed tokens one after the other, of parts whose tokens fill their `buf`."""
    lengths = [np.diff(part.offsets) for part in parts]
    bufs = [part.buf for part in parts]
    return PackedTokens(
        np.concatenate([np.empty(0, np.uint8), *bufs]),
        offsets_of(np.concatenate([np.empty(0, np.int64), *lengths])),
    )


def pack(tokens: list[bytes]) -> PackedTokens:
    """Pack tokens that are bytes already."""
    return PackedTokens(np.frombuffer(b"".join(tokens), np.uint8), offsets_of(list(map(len, tokens))))


def check_dim(name: str, dim: int) -> None:
    """Raise InputError unless vectors may have `dim` values."""
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{name} has vectors of {dim} values, expected 1 to {MAX_DIM:,}.")
