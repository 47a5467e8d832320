"""Pack tokens, and build and probe the token index of `docs/reference/format.md` with NumPy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError, TokenTableError
from smallfry.kernels.numpy.text import invalid_utf8
from smallfry.offsets import Offsets, offsets_of

PROBE_LIMIT = 64
MAX_TOKENS = 2**32 - 2

_WORD_BYTES = np.arange(8)
_JSON_TOKENS = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"tokens"[ \t\n\r]*:[ \t\n\r]*(\[.*\])', re.DOTALL)


def pack_tokens(tokens: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Return UTF-8 bytes, offsets ``[n + 1]`` and the first position of a lone surrogate, or -1."""
    encoded, surrogates = _encode(tokens)
    buf, offsets = _join(encoded)
    return buf, offsets, surrogates[0] if surrogates else -1


def build_index(
    tokens: NDArray[np.uint8],
    offsets: Offsets,
    slot_count: int,
    seed: int,
) -> tuple[NDArray[np.uint32] | None, tuple[int, int] | None, int | None]:
    """Build the slots of an index of tokens.

    Of equal tokens the first row is in the index, and none that is not valid UTF-8.

    Returns
    -------
    slots : ndarray of uint32, shape [slot_count]
        None if a token would be `PROBE_LIMIT` or more slots after its home; then all three are.
    duplicate : (int, int) or None
        The first row with the same token as an earlier one, after that earlier row.
    invalid : int or None
        The first row whose token is not valid UTF-8.
    """
    offsets = _checked_offsets(offsets, len(tokens))
    rows = len(offsets) - 1
    if rows > MAX_TOKENS or not PROBE_LIMIT <= slot_count <= 2**32 + PROBE_LIMIT - 1:
        raise InputError(f"{rows} tokens in {slot_count} slots exceed the limits of an index of 32-bit slots")
    invalid = invalid_utf8(tokens, offsets)
    hashes = hash_tokens(tokens, offsets, seed)
    homes = _homes(hashes, slot_count)
    first = _first_occurrences(tokens, offsets, hashes)
    indexed = first == np.arange(rows)
    indexed[invalid] = False
    order = np.argsort(homes, kind="stable")
    order = order[indexed[order]]
    step = np.arange(len(order))
    slots = step + np.maximum.accumulate(homes[order] - step)
    if len(order) and int((slots - homes[order]).max()) >= PROBE_LIMIT:
        return None, None, None
    index = np.zeros(slot_count, np.uint32)
    index[slots] = _fingerprints(hashes[order], rows) | (order + 1).astype(np.uint32)
    indexed[invalid] = True
    duplicates = np.flatnonzero(~indexed)
    return (
        index,
        (int(first[duplicates[0]]), int(duplicates[0])) if len(duplicates) else None,
        int(invalid[0]) if len(invalid) else None,
    )


def hash_tokens(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return the 64-bit hash of each token, computed over eight little-endian, zero-padded bytes a step."""
    begins, ends = offsets[:-1], offsets[1:]
    lengths = ends - begins
    start = np.array((seed + 1) * 0x9E3779B97F4A7C15 % 2**64, np.uint64)
    state = start ^ lengths.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    padded = np.concatenate([tokens, np.zeros(8, np.uint8)])
    pending = np.arange(len(lengths))
    word = 0
    while len(pending):
        positions = (begins[pending] + 8 * word)[:, None] + _WORD_BYTES
        eight = np.where(positions < ends[pending, None], padded[np.minimum(positions, len(tokens))], 0)
        words = np.ascontiguousarray(eight, np.uint8).view("<u8")[:, 0]
        mixed = (state[pending] ^ words) * np.uint64(0xA0761D6478BD642F)
        state[pending] = mixed ^ mixed >> np.uint64(32)
        word += 1
        pending = pending[lengths[pending] > 8 * word]
    mixed = (state ^ state >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    hashes: NDArray[np.uint64] = mixed ^ mixed >> np.uint64(32)
    return hashes


class TokenIndex:
    """Look up tokens in mapped arrays; see `smallfry.vocabulary.Vocabulary` for the arrays."""

    def __init__(
        self,
        tokens: NDArray[np.uint8],
        offsets: NDArray[np.uint32] | NDArray[np.uint64],
        slots: NDArray[np.uint32],
        seed: int,
    ) -> None:
        self._tokens = tokens
        self._offsets = offsets
        self._slots = slots
        self._seed = seed

    def find(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each token, -1 if unknown."""
        encoded, surrogates = _encode(tokens)
        rows = self.find_utf8(*_join(encoded))
        rows[surrogates] = -1
        return rows

    def find_utf8(self, buf: NDArray[np.uint8], offsets: Offsets) -> NDArray[np.int64]:
        """Return the row of each token of packed UTF-8, -1 if unknown."""
        offsets = _checked_offsets(offsets, len(buf))
        hashes = hash_tokens(buf, offsets, self._seed)
        rows = np.full(len(hashes), -1, np.int64)
        slots = _homes(hashes, len(self._slots))
        fingerprints = _fingerprints(hashes, len(self._offsets) - 1)
        row_mask = _row_mask(len(self._offsets) - 1)
        pending = np.arange(len(hashes))
        for step in range(PROBE_LIMIT):
            held = self._slots[slots[pending] + step]
            pending, held = pending[held != 0], held[held != 0]
            if not len(pending):
                break
            for i in np.flatnonzero(held & ~row_mask == fingerprints[pending]):
                query = int(pending[i])
                row = int(held[i] & row_mask) - 1
                if self._token(row) == buf[offsets[query] : offsets[query + 1]].tobytes():
                    rows[query] = row
            pending = pending[rows[pending] < 0]
        return rows

    def find_one(self, token: str) -> int:
        """Return the row of a token, -1 if unknown."""
        return int(self.find([token])[0])

    def find_json(self, text: bytes, most: int) -> NDArray[np.int64] | None:
        """Return the row of each token of a JSON object's beginning, -1 if unknown; None if it is another."""
        match = _JSON_TOKENS.fullmatch(text)
        if match is None:
            return None
        try:
            tokens = json.loads(match[1].decode())
            "".join(tokens).encode()  # fails unless all are strings without lone surrogates
        except (TypeError, ValueError, RecursionError):
            return None
        return self.find(tokens) if len(tokens) <= most else None

    def _token(self, row: int) -> bytes:
        rows, size = len(self._offsets) - 1, len(self._tokens)
        if not 0 <= row < rows:
            raise TokenTableError(f"the token index names row {row}, but there are {rows} rows")
        begin, end = int(self._offsets[row]), int(self._offsets[row + 1])
        if not begin <= end <= size:
            raise TokenTableError(
                f"the token of row {row} runs from byte {begin} to {end}, "
                f"but there are {size} bytes of tokens"
            )
        return self._tokens[begin:end].tobytes()


class TokenSet:
    """A growing set of tokens that detects duplicates in a stream."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, buf: NDArray[np.uint8], offsets: Offsets) -> NDArray[np.bool_]:
        """Add tokens, and return whether each was new."""
        offsets = _checked_offsets(offsets, len(buf))
        first = np.zeros(len(offsets) - 1, np.bool_)
        for i, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            size = len(self._seen)
            self._seen.add(buf[begin:end].tobytes())
            first[i] = len(self._seen) > size
        return first


def _encode(tokens: Sequence[str]) -> tuple[list[bytes], list[int]]:
    encoded: list[bytes] = []
    surrogates: list[int] = []
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TypeError(
                f"tokens[{i}] is {type(token).__name__}, expected str: "
                "tokens are strings; look up row numbers by id"
            )
        try:
            encoded.append(token.encode())
        except UnicodeEncodeError:
            encoded.append(b"")
            surrogates.append(i)
    return encoded, surrogates


def _join(encoded: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.frombuffer(b"".join(encoded), np.uint8), offsets_of(list(map(len, encoded)))


def _checked_offsets(offsets: Offsets, size: int) -> NDArray[np.int64]:
    offsets = np.asarray(offsets, np.int64)
    if not len(offsets):
        raise InputError("offsets is empty, expected n + 1 offsets for n tokens")
    previous = np.concatenate([[0], offsets[:-1]])
    wrong = np.flatnonzero((offsets < previous) | (offsets > size))
    if len(wrong):
        i = int(wrong[0])
        raise InputError(
            f"offsets[{i}] is {offsets[i]}, expected {previous[i]} to {size}: "
            "offsets must not decrease or exceed the bytes"
        )
    return offsets


def _first_occurrences(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> NDArray[np.int64]:
    first = np.arange(len(hashes))
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order][1:] == hashes[order][:-1]
    suspects = order[np.append(equal, False) | np.insert(equal, 0, False)] if len(order) else order
    seen: dict[bytes, int] = {}
    for row in np.sort(suspects).tolist():
        first[row] = seen.setdefault(tokens[offsets[row] : offsets[row + 1]].tobytes(), row)
    return first


def _homes(hashes: NDArray[np.uint64], slot_count: int) -> NDArray[np.int64]:
    homes = np.uint64(slot_count - PROBE_LIMIT + 1)
    return ((hashes >> np.uint64(32)) * homes >> np.uint64(32)).astype(np.int64)


def _row_mask(rows: int) -> np.uint32:
    return np.uint32(2 ** rows.bit_length() - 1)


def _fingerprints(hashes: NDArray[np.uint64], rows: int) -> NDArray[np.uint32]:
    return (hashes << np.uint64(rows.bit_length())).astype(np.uint32) & ~_row_mask(rows)
