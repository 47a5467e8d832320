"""The vocabulary: tokens to rows and rows to tokens, on arrays that can be memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import kernels
from smallfry.errors import InputError, TokenTableError, shorten
from smallfry.kernels.numpy.tokens import MAX_TOKENS, PROBE_LIMIT
from smallfry.offsets import Offsets

SEEDS = 8
DOUBLINGS = 4


class PackedTokens(NamedTuple):
    """Tokens in UTF-8: token i is ``buf[offsets[i]:offsets[i + 1]]``."""

    buf: NDArray[np.uint8]
    """uint8 ``[bytes]``."""
    offsets: Offsets
    """int64, uint32 or uint64 ``[n + 1]``."""


class Vocabulary:
    """The tokens of a table in row order, with a hash index.

    A token is any string: with spaces, with NUL, or empty. `build` makes a vocabulary from tokens;
    `from_arrays` opens the arrays of one, for example from a ``.sfq`` file. Thread-safe; a lookup holds the
    GIL only while it reads the Python strings.

    A row is *unnamed* if an earlier row has its token, or if its token is not valid UTF-8: no lookup finds
    it, it is reached by number. `build` makes such rows only on request.

    Attributes
    ----------
    tokens : ndarray
        uint8 ``[bytes]``, the UTF-8 of all tokens in row order.
    offsets : ndarray
        uint32 (uint64 past 4 GiB) ``[rows + 1]``: the token of row i is
        ``tokens[offsets[i]:offsets[i + 1]]``.
    index : ndarray
        uint32 ``[slots]``, a hash index in which a lookup reads a limited number of slots.
    seed : int
        Seed of the hash.

    Examples
    --------
    >>> vocabulary = Vocabulary.build(["the", "of", "New York"])
    >>> vocabulary.find(["of", "New York", "york"]).tolist()
    [1, 2, -1]
    >>> vocabulary.token(2)
    'New York'
    """

    def __init__(
        self,
        tokens: NDArray[np.uint8],
        offsets: NDArray[np.uint32] | NDArray[np.uint64],
        index: NDArray[np.uint32],
        seed: int,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.index = index
        self.seed = seed
        self._index = kernels.TokenIndex(tokens, offsets, index, seed)

    @classmethod
    def build(cls, tokens: Iterable[str | bytes] | PackedTokens, *, unnamed: bool = False) -> Vocabulary:
        """Build a vocabulary in which the i-th token has row i.

        Parameters
        ----------
        tokens : iterable of str or bytes, or PackedTokens
            A pair ``(buf, offsets)`` of arrays is read as `PackedTokens`.
        unnamed : bool
            Leave a row unnamed if its token is not valid UTF-8 or an earlier row has it. By default, that is
            an error.

        Raises
        ------
        InputError
            A token occurs twice (the message names it and both rows) or is not valid Unicode.
        TypeError
            A token is neither str nor bytes.
        """
        buf, offsets = _packed(tokens)
        rows = len(offsets) - 1
        if rows > MAX_TOKENS:
            raise InputError(f"there are {rows} tokens, expected at most {MAX_TOKENS}.")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(buf):
            ends = f"run from {offsets[0]} to {offsets[-1]}" if len(offsets) else "are empty"
            raise InputError(f"offsets {ends}, expected 0 to {len(buf)}, the number of bytes.")
        index, seed = _build_index(buf, offsets, unnamed)
        if len(buf) < 2**32:
            return cls(buf, offsets.astype(np.uint32, copy=False), index, seed)
        return cls(buf, offsets.astype(np.uint64, copy=False), index, seed)

    @classmethod
    def from_arrays(
        cls,
        tokens: NDArray[np.uint8],
        offsets: NDArray[np.uint32] | NDArray[np.uint64],
        index: NDArray[np.uint32],
        seed: int,
    ) -> Vocabulary:
        """Open a vocabulary over its arrays, which can be read-only views of a memory map.

        The time does not depend on the size: dtypes, lengths and both ends of `offsets` are checked. Lookups
        check the rest as they use it, so damaged arrays cause wrong rows or an error.

        Raises
        ------
        TokenTableError
            The arrays contradict each other.
        """
        _check_arrays(tokens, offsets, index)
        return cls(tokens, offsets, index, seed)

    def find(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each token, -1 for an unknown token.

        A string with a lone surrogate has no UTF-8 form and is unknown.

        Raises
        ------
        TypeError
            An element is not a str; the message names its position and type.
        TokenTableError
            The arrays are damaged.
        """
        if isinstance(tokens, str | bytes):
            raise TypeError(f"tokens is one {type(tokens).__name__}, expected a list of str")
        return self._index.find(tokens)

    def find_utf8(
        self, buf: bytes | bytearray | memoryview | NDArray[np.uint8], offsets: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Return the row of each token of packed UTF-8, -1 for an unknown token.

        Parameters
        ----------
        buf : bytes-like
            The UTF-8 of n tokens.
        offsets : ndarray
            Integers ``[n + 1]``: token i is ``buf[offsets[i]:offsets[i + 1]]``.

        Raises
        ------
        InputError
            `offsets` decrease or exceed the end of `buf`.
        TokenTableError
            The arrays of the vocabulary are damaged.
        """
        array = np.asarray(offsets)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"offsets are {array.dtype} {list(array.shape)}, expected integers [n + 1].")
        return self._index.find_utf8(_as_bytes(buf), np.ascontiguousarray(array, np.int64))

    def find_json(self, text: bytes, most: int) -> NDArray[np.int64] | None:
        """Return the row of each token of a JSON request without Python strings, -1 for an unknown token.

        Parameters
        ----------
        text : bytes
            The beginning of an object up to the end of its first member, ``{"tokens": ["the", "of"]``.
        most : int
            Limit of the number of tokens.

        Returns
        -------
        ndarray of int64, or None
            None if the text has another form, more tokens or invalid strings: parse it with a JSON parser,
            which reports the reason.

        Raises
        ------
        TokenTableError
            The arrays are damaged.
        """
        return self._index.find_json(text, most)

    def token(self, row: int) -> str:
        """Return the token of a row.

        Raises
        ------
        IndexError
            The row does not exist.
        TokenTableError
            The offsets of the row are damaged.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is out of range: the vocabulary has rows 0 to {len(self) - 1}.")
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        if not begin <= end <= len(self.tokens):
            raise TokenTableError(
                f"the token of row {row} has bytes {begin} to {end}, "
                f"but there are {len(self.tokens)} bytes of tokens. The file is damaged."
            )
        return self.tokens[begin:end].tobytes().decode(errors="replace")

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the tokens of distinct rows.

        Raises
        ------
        IndexError
            A row does not exist.
        TokenTableError
            The offsets of a row are damaged, or those of several rows overlap.
        """
        nbytes = int(self.lengths(rows).sum())
        if nbytes > len(self.tokens):
            raise TokenTableError(
                f"the tokens of {len(rows)} rows have {nbytes:,} bytes, "
                f"but there are {len(self.tokens):,} bytes of tokens. The file is damaged."
            )
        return [self.token(int(row)) for row in rows]

    def lengths(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Return the bytes of the tokens of rows, int64 ``[n]``, without reading the tokens.

        Damaged offsets are clamped to the bytes of all tokens, so no length is negative or greater.
        """
        ids = np.asarray(rows, np.int64)
        begin, end = (np.minimum(self.offsets[at], len(self.tokens)) for at in (ids, ids + 1))
        return np.maximum(end.astype(np.int64) - begin.astype(np.int64), 0)

    def count_unnamed(self) -> int:
        """Return the number of unnamed rows; reads the whole index."""
        return len(self) - int(np.count_nonzero(self.index))

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``tokens``, ``token_offsets``, ``token_index``."""
        return {
            "tokens": self.tokens.nbytes,
            "token_offsets": self.offsets.nbytes,
            "token_index": self.index.nbytes,
        }

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self._index.find_one(token) >= 0

    def __iter__(self) -> Iterator[str]:
        return (self.token(row) for row in range(len(self)))


def _packed(tokens: Iterable[str | bytes] | PackedTokens) -> PackedTokens:
    if isinstance(tokens, str | bytes):
        raise TypeError(f"tokens is one {type(tokens).__name__}, expected a list of them")
    if isinstance(tokens, tuple) and len(tokens) == 2 and isinstance(tokens[0], np.ndarray):
        narrow = tokens[1].dtype in (np.uint32, np.uint64)
        return PackedTokens(
            _as_bytes(tokens[0]), np.ascontiguousarray(tokens[1], None if narrow else np.int64)
        )
    strings = [_decode(token, i) if isinstance(token, bytes) else token for i, token in enumerate(tokens)]
    buf, offsets, surrogate = kernels.pack_tokens(strings)
    if surrogate >= 0:
        raise InputError(
            f"token {shorten(strings[surrogate])} of row {surrogate} has a lone surrogate, "
            "which UTF-8 cannot encode. Please replace it."
        )
    return PackedTokens(buf, offsets)


def _decode(token: bytes, row: int) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"token {shorten(token)} of row {row} is not valid UTF-8: {error.reason}.") from None


def _as_bytes(buf: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(buf, np.ndarray):
        if buf.ndim != 1 or buf.dtype != np.uint8:
            raise InputError(f"buf is {buf.dtype} {list(buf.shape)}, expected uint8 [bytes].")
        return np.ascontiguousarray(buf)
    return np.frombuffer(buf, np.uint8)


def _build_index(buf: NDArray[np.uint8], offsets: Offsets, unnamed: bool) -> tuple[NDArray[np.uint32], int]:
    """Return the index, and the first seed that puts every token within the probe limit."""
    rows = len(offsets) - 1
    homes = max(-(-rows * 4 // 3), 1)
    for doubling in range(DOUBLINGS + 1):
        slots = min(homes << doubling, 2**32) + PROBE_LIMIT - 1
        for seed in range(SEEDS):
            index, duplicate, invalid = kernels.build_index(buf, offsets, slots, seed)
            if index is None:
                continue
            if not unnamed:
                _check_named(buf, offsets, duplicate, invalid)
            return index, seed
    raise InputError(
        f"the hashes of these {rows} tokens collide under every seed below {SEEDS}: "
        "the tokens were made for it. Please leave them out."
    )


def _check_named(
    buf: NDArray[np.uint8], offsets: Offsets, duplicate: tuple[int, int] | None, invalid: int | None
) -> None:
    if invalid is not None:
        token = buf[offsets[invalid] : offsets[invalid + 1]].tobytes()
        raise InputError(f"token {shorten(token)} of row {invalid} is not valid UTF-8. Please convert it.")
    if duplicate is not None:
        first, second = duplicate
        token = buf[offsets[first] : offsets[first + 1]].tobytes()
        raise InputError(
            f"token {shorten(token.decode())} occurs twice, in rows {first} and {second}. "
            "Tokens must be unique. Please drop or rename one."
        )


def _check_arrays(
    tokens: NDArray[np.uint8], offsets: NDArray[np.uint32] | NDArray[np.uint64], index: NDArray[np.uint32]
) -> None:
    for name, array, dtypes in (
        ("tokens", tokens, (np.uint8,)),
        ("token_offsets", offsets, (np.uint32, np.uint64)),
        ("token_index", index, (np.uint32,)),
    ):
        if array.ndim != 1 or array.dtype not in dtypes:
            expected = " or ".join(np.dtype(dtype).name for dtype in dtypes)
            raise TokenTableError(
                f"{name} is {array.dtype} {list(array.shape)}, expected one dimension of {expected}."
            )
    if not 1 <= len(offsets) <= MAX_TOKENS + 1:
        raise TokenTableError(f"token_offsets has {len(offsets)} entries, expected 1 to {MAX_TOKENS + 1}.")
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(tokens):
        raise TokenTableError(
            f"token_offsets run from {int(offsets[0])} to {int(offsets[-1])}, "
            f"expected 0 to {len(tokens)}, the number of bytes."
        )
    least = max(len(offsets) - 1, PROBE_LIMIT)
    if not least <= len(index) <= 2**32 + PROBE_LIMIT - 1:
        raise TokenTableError(
            f"token_index has {len(index)} slots, expected at least {least} for {len(offsets) - 1} rows."
        )
