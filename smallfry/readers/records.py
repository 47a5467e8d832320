"""Chunks of rows as stored in the input, the interface of all format readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import BadLineError, InputError
from smallfry.offsets import offsets_of
from smallfry.readers.input.encoding import is_utf8
from smallfry.table import MAX_DIM
from smallfry.vocabulary import PackedTokens

BLOCK_BYTES = 1 << 21
"""Bytes of the input read and parsed at a time."""

MAX_LINE = 1 << 24
"""Longest line or record, in bytes."""

MAX_TOKEN = 1 << 16
"""Longest token of a word2vec binary file, in bytes; only a space ends it."""


class RecordChunk(NamedTuple):
    """Consecutive rows of an input, without malformed ones."""

    tokens: PackedTokens | None
    """Tokens as stored, valid UTF-8 or not; None if the input has no tokens."""
    vectors: NDArray[np.float32]
    """float32 ``[m, dim]``, finite or not."""
    numbers: NDArray[np.int64]
    """int64 ``[m]``: position of each row in the input, in the reader's unit."""
    finite: bool = False
    """Whether all values are known to be finite."""

    def select(self, rows: NDArray[np.bool_]) -> RecordChunk:
        """Return the chunk with only the rows that are True."""
        tokens = None if self.tokens is None else select_tokens(self.tokens, rows)
        return RecordChunk(tokens, self.vectors[rows], self.numbers[rows])

    def head(self, count: int) -> RecordChunk:
        """Return the chunk with only its first `count` rows."""
        tokens = None if self.tokens is None else slice_tokens(self.tokens, 0, count)
        return RecordChunk(tokens, self.vectors[:count], self.numbers[:count])


class Records(Protocol):
    """Reader of one format, over an open stream."""

    unit: str
    """Unit of `RecordChunk.numbers`: "line", "record" or "row"."""
    is_matrix: bool
    """Whether each row keeps its number: none is dropped."""
    dim: int

    @property
    def rows(self) -> int | None:
        """Rows that the header declares; None without a header."""
        ...

    def chunks(self) -> Iterator[RecordChunk]:
        """Read the input to its end, once."""
        ...


def all_finite(vectors: NDArray[np.float32]) -> bool:
    """Return whether all values are finite; False also if their sum overflows. Faster than to test each."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(vectors.sum()))


def select_tokens(tokens: PackedTokens, rows: NDArray[np.bool_]) -> PackedTokens:
    """Return the packed tokens that are True; the tokens must fill `tokens.buf`."""
    lengths = np.diff(tokens.offsets)
    return PackedTokens(tokens.buf[np.repeat(rows, lengths)], offsets_of(lengths[rows]))


def slice_tokens(tokens: PackedTokens, begin: int, end: int) -> PackedTokens:
    """Return packed tokens `begin` to `end`, without copying their bytes."""
    offsets = tokens.offsets[begin : end + 1]
    return PackedTokens(tokens.buf[offsets[0] : offsets[-1]], offsets - offsets[0])


def join_tokens(parts: Sequence[PackedTokens]) -> PackedTokens:
    """Concatenate packed tokens; the tokens of each part must fill its `buf`."""
    lengths = [np.diff(part.offsets) for part in parts]
    bufs = [part.buf for part in parts]
    return PackedTokens(
        np.concatenate([np.empty(0, np.uint8), *bufs]),
        offsets_of(np.concatenate([np.empty(0, np.int64), *lengths])),
    )


def pack(tokens: list[bytes]) -> PackedTokens:
    """Pack tokens given as bytes."""
    return PackedTokens(np.frombuffer(b"".join(tokens), np.uint8), offsets_of(list(map(len, tokens))))


def unpack(tokens: PackedTokens) -> list[bytes]:
    """Return packed tokens as bytes."""
    data = tokens.buf.tobytes()
    return [data[begin:end] for begin, end in pairwise(tokens.offsets.tolist())]


def decode_tokens(tokens: PackedTokens, encoding: str | None, name: str, first: int) -> PackedTokens:
    """Convert the tokens of records to UTF-8; `name` and the number of the first record are for messages."""
    if encoding is None or is_utf8(encoding):
        return tokens
    decoded = []
    for number, token in enumerate(unpack(tokens), first):
        try:
            decoded.append(token.decode(encoding).encode())
        except UnicodeError as error:
            raise BadLineError(f"{name}, record {number}: {error}. Please pass its encoding.") from None
    return pack(decoded)


def check_dim(name: str, dim: int) -> None:
    """Raise InputError if vectors cannot have `dim` values."""
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{name} has vectors of {dim} values, expected 1 to {MAX_DIM:,}.")
