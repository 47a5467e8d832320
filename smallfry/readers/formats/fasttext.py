"""fastText models (``.bin``): the words, with the vectors that fastText returns for them.

The vector of a word is the mean of its own row of the input matrix and of the rows of its character n-grams.
A hash of the n-gram gives its row; see `Dictionary::computeSubwords` of fastText 0.9.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.input.stream import InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import (
    BLOCK_BYTES,
    MAX_TOKEN,
    RecordChunk,
    check_dim,
    decode_tokens,
    join_tokens,
    pack,
    slice_tokens,
)
from smallfry.table import MAX_DIM
from smallfry.vocabulary import PackedTokens

MAX_NGRAM = 64
"""Longest character n-grams, in characters; fastText's default is 6."""

HEAD_BYTES = 76
"""Bytes from which `is_fasttext` tells a model."""

_MAGIC = b"\xba\x16\x4f\x2f"
_VERSIONS = (11, 12)
_UNVERSIONED = 0
_ARGUMENTS = "<12id"
_COUNTS = "<3iq"
_ENTRY = 10  # bytes of an entry of the dictionary with an empty word: its NUL, count and kind
_WORD, _SUPERVISED = 0, 3
_END_OF_SENTENCE = b"</s>"
_TOKENS_PACKED = 1 << 16  # at a time
_GATHERED = 1 << 21  # bytes of rows summed at a time

_HASH_BASIS = np.uint32(2166136261)  # of the 32-bit FNV-1a hash
_HASH_PRIME = np.uint32(16777619)


class Ngrams(NamedTuple):
    """Which n-grams a model has."""

    shortest: int
    longest: int
    buckets: int


def is_fasttext(head: bytes) -> bool:
    """Return whether a file begins as a fastText model."""
    return head.startswith(_MAGIC) or _is_unversioned(head)


class FastTextRecords:
    """Words of a fastText model; labels are left out.

    The rows of n-grams are spread over the matrix, so the model is mapped into memory: from a temporary copy
    if the stream is no plain file. `stack` closes it.
    """

    unit = "record"
    is_matrix = False

    def __init__(self, stream: InputStream, options: ReadOptions, stack: ExitStack) -> None:
        self.name = stream.name
        self._stream = stream
        self._encoding = options.encoding
        file = stream.seekable(stack)
        self._size = os.fstat(file.fileno()).st_size
        version = self._read_version(file)
        self.dim, self._ngrams = self._read_arguments(file, version)
        entries, self.rows, pruned = self._read_counts(file, version)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self._words, end = self._read_words(data, file.tell(), entries)
        file.seek(end)
        if pruned or (version > _UNVERSIONED and self._unpack(file, "<?")[0]):
            raise InputError(
                f"{self.name} is a quantized fastText model (.ftz), whose rows are approximations. "
                "Please use the .bin model that it was made from."
            )
        self._matrix = self._map_matrix(file)

    def chunks(self) -> Iterator[RecordChunk]:
        """Read all words."""
        for begin, end in self._blocks():
            words = slice_tokens(self._words, begin, end)
            vectors = self._vectors(words, begin)
            # Read ahead in the stream, which counts and hashes the bytes.
            self._stream.skip(self._size * end // self.rows - self._stream.position)
            tokens = decode_tokens(words, self._encoding, self.name, begin + 1)
            yield RecordChunk(tokens, vectors, np.arange(begin, end) + 1)

    def _read_version(self, file: BinaryIO) -> int:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if not head.startswith(_MAGIC):
            if not _is_unversioned(head):
                raise InputError(f"{self.name} is not a fastText model (.bin).")
            return _UNVERSIONED
        _, version = self._unpack(file, "<2i")
        if version not in _VERSIONS:
            raise InputError(f"{self.name} is a fastText model of version {version}, expected 11 or 12.")
        return version

    def _read_arguments(self, file: BinaryIO, version: int) -> tuple[int, Ngrams]:
        dim, *_, model, buckets, shortest, longest, _, _ = self._unpack(file, _ARGUMENTS)
        check_dim(self.name, dim)
        if model == _SUPERVISED and version < 12:
            longest = 0  # such models declare n-grams that they do not use
        if longest > MAX_NGRAM:
            raise self._damaged(f"it declares n-grams of {longest:,} characters, the limit is {MAX_NGRAM}")
        if buckets < 0 or (longest > 0 and buckets == 0):
            raise self._damaged(f"it declares {buckets:,} buckets of n-grams")
        return dim, Ngrams(max(shortest, 1), longest, buckets)

    def _read_counts(self, file: BinaryIO, version: int) -> tuple[int, int, bool]:
        """Return the entries of the dictionary, how many are words, and whether n-grams are pruned."""
        entries, words, labels, _ = self._unpack(file, _COUNTS)
        if not 0 < words <= entries == words + labels or entries * _ENTRY > self._size:
            raise self._damaged(f"it declares {entries:,} entries, {words:,} words and {labels:,} labels")
        return entries, words, version > _UNVERSIONED and self._unpack(file, "<q")[0] >= 0

    def _read_words(self, data: mmap.mmap, begin: int, entries: int) -> tuple[PackedTokens, int]:
        """Return the words and the end of the dictionary."""
        parts, words = [], []
        for entry in range(entries):
            end = data.find(b"\0", begin, begin + MAX_TOKEN)
            if end < 0 or end + _ENTRY > len(data):
                raise self._damaged(f"entry {entry + 1:,} of its dictionary does not end")
            if entry < self.rows:
                if data[end + _ENTRY - 1] != _WORD:
                    raise self._damaged(f"entry {entry + 1:,} of its dictionary is no word")
                words.append(data[begin:end])
                if len(words) == _TOKENS_PACKED:
                    parts.append(pack(words))
                    words = []
            begin = end + _ENTRY
        return join_tokens([*parts, pack(words)]), begin

    def _map_matrix(self, file: BinaryIO) -> NDArray[np.uint8]:
        """Return the bytes of the input matrix, uint8 ``[words + buckets, 4 * dim]``."""
        rows, dim = self._unpack(file, "<2q")
        expected = self.rows + self._ngrams.buckets
        if (rows, dim) != (expected, self.dim):
            raise self._damaged(f"its matrix is [{rows:,}, {dim:,}], expected [{expected:,}, {self.dim:,}]")
        if self._size - file.tell() < 4 * rows * dim:
            raise self._damaged(f"it ends inside its matrix of {4 * rows * dim:,} bytes")
        return np.asarray(np.memmap(file, np.uint8, "r", file.tell(), (rows, 4 * dim)))

    def _unpack(self, file: BinaryIO, layout: str) -> tuple[int, ...]:
        try:
            return struct.unpack(layout, file.read(struct.calcsize(layout)))
        except struct.error:
            raise self._damaged("it ends inside its header") from None

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of words whose vectors, and whose n-grams, take little memory."""
        offsets, begin = self._words.offsets, 0
        while begin < self.rows:
            limit = offsets[begin] + BLOCK_BYTES // (self._ngrams.longest + 1)
            end = int(np.searchsorted(offsets, limit, "right")) - 1
            end = max(min(end, begin + BLOCK_BYTES // (4 * self.dim), self.rows), begin + 1)
            yield begin, end
            begin = end

    def _vectors(self, words: PackedTokens, begin: int) -> NDArray[np.float32]:
        count = len(words.offsets) - 1
        if self._ngrams.longest < self._ngrams.shortest:
            return self._matrix[begin : begin + count].copy().view("<f4")
        rows, counts = subwords(words, self._ngrams)
        own = rows < 0
        rows += self.rows
        rows[own] = np.arange(begin, begin + count)
        return self._sums(rows, counts) * (1.0 / counts).astype(np.float32)[:, None]

    def _sums(self, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the sum of the rows of each word, added in order."""
        sums = np.zeros((len(counts), self.dim), np.float32)
        ends = np.cumsum(counts)
        step = max(1, _GATHERED // (4 * self.dim))
        first = begin = 0
        while first < len(counts):
            last = max(int(np.searchsorted(ends, begin + step, "right")), first + 1)
            starts = ends[first:last] - counts[first:last]
            stop = int(ends[last - 1])
            for piece in range(begin, stop, step):  # several only for a single word
                gathered = np.take(self._matrix, rows[piece : min(piece + step, stop)], axis=0).view("<f4")
                with np.errstate(over="ignore", invalid="ignore"):  # rejected later
                    sums[first:last] += np.add.reduceat(gathered, np.maximum(starts - piece, 0), axis=0)
            first, begin = last, stop
        return sums

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"{self.name} is a damaged fastText model: {reason}. Please copy or download it again."
        )


def subwords(words: PackedTokens, ngrams: Ngrams) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the buckets of each word's n-grams, after -1 for the word, and their number with it.

    Characters are UTF-8 sequences; n-grams include the "<" and ">" put around the word, but not alone. The
    word ``</s>`` has none.
    """
    count = len(words.offsets) - 1
    offsets = words.offsets + 2 * np.arange(count + 1)
    buf = np.empty(offsets[-1], np.uint8)
    inner = np.ones(len(buf), np.bool_)
    inner[offsets[:-1]] = inner[offsets[1:] - 1] = False
    buf[inner], buf[offsets[:-1]], buf[offsets[1:] - 1] = words.buf, ord("<"), ord(">")

    starts = np.flatnonzero(buf & 0xC0 != 0x80)
    sizes = np.diff(starts, append=len(buf))
    ends = np.searchsorted(starts, offsets[1:])  # of each word, in characters
    firsts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    end = np.repeat(ends, ends - firsts)
    signed = buf.view(np.int8).astype(np.uint32)  # fastText hashes signed characters

    # Row i has the n-grams that begin at character i, after the word itself if it begins there.
    found = np.full((len(starts), ngrams.longest - ngrams.shortest + 2), -2, np.int64)
    hashes = np.full(len(starts), _HASH_BASIS)
    at = np.arange(len(starts))
    for length in range(1, ngrams.longest + 1):
        at = at[at + length <= end[at]]
        last = at + length - 1
        for byte in range(int(sizes[last].max(initial=0))):
            more = sizes[last] > byte
            hashes[at[more]] = (hashes[at[more]] ^ signed[starts[last[more]] + byte]) * _HASH_PRIME
        if length >= ngrams.shortest:
            found[at, length - ngrams.shortest + 1] = hashes[at] % np.uint32(ngrams.buckets)
    if ngrams.shortest == 1:
        found[firsts, 1] = found[ends - 1, 1] = -2
    for word in np.flatnonzero(np.diff(words.offsets) == len(_END_OF_SENTENCE)):
        if words.buf[words.offsets[word] : words.offsets[word + 1]].tobytes() == _END_OF_SENTENCE:
            found[firsts[word] : ends[word]] = -2
    found[firsts, 0] = -1
    is_found = found > -2
    return found[is_found], np.add.reduceat(is_found.sum(axis=1), firsts)


def _is_unversioned(head: bytes) -> bool:
    """Return whether a model of the first fastText begins so: with its arguments and counts."""
    if len(head) < HEAD_BYTES:
        return False
    dim, _, _, _, _, _, loss, model, *_ = struct.unpack_from(_ARGUMENTS, head)
    entries, words, labels, _ = struct.unpack_from(_COUNTS, head, struct.calcsize(_ARGUMENTS))
    plausible = 0 < dim <= MAX_DIM and 0 < words <= entries == words + labels
    return plausible and loss in (1, 2, 3) and model in (1, 2, _SUPERVISED)
