"""Word lists: the words of a matrix's rows, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from smallfry.errors import InputError
from smallfry.offsets import offsets_of
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, join_tokens, pack, slice_tokens
from smallfry.readers.report import ReadReport
from smallfry.readers.stream import BYTE_ORDER_MARK, InputStream
from smallfry.vocabulary import PackedTokens


class WordList:
    """The words of a matrix's rows, read in sequence.

    Parameters
    ----------
    name : str
        Name of the list in messages.
    blocks : iterator of PackedTokens
        All words, in blocks of any size; each block fills its `buf`.
    """

    def __init__(self, name: str, blocks: Iterator[PackedTokens]) -> None:
        self.name = name
        self._blocks = blocks
        self._block = pack([])
        self._taken = 0

    def take(self, count: int) -> PackedTokens:
        """Return the next `count` words; raise InputError if the list ends before."""
        parts = []
        while count:
            if not self._advance():
                raise InputError(
                    f"Number of words ({self._taken}) does not match number of vectors: {self.name} is too "
                    "short. Please give one word a line, in the order of the vectors."
                )
            held = len(self._block.offsets) - 1
            taken = min(held, count)
            parts.append(slice_tokens(self._block, 0, taken))
            self._block = slice_tokens(self._block, taken, held)
            self._taken += taken
            count -= taken
        return join_tokens(parts)

    def take_all(self) -> PackedTokens:
        """Return all words that are left."""
        return join_tokens([self._block, *self._blocks])

    def finish(self) -> None:
        """Raise InputError unless all words were taken."""
        if self._advance():
            raise InputError(
                f"Number of words does not match number of vectors ({self._taken}): {self.name} has more. "
                "Please give one word a line, in the order of the vectors."
            )

    def _advance(self) -> bool:
        """Ensure that the current block has words; return False at the end of the list."""
        while len(self._block.offsets) < 2:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._block = block
        return True


def open_words(
    path: str | os.PathLike[str],
    rows: int | None,
    options: ReadOptions,
    report: ReadReport,
    stack: ExitStack,
) -> WordList:
    """Open a word list, also gzipped, for a matrix of `rows` rows; None if their number is unknown.

    An empty line is an empty word; a final newline adds no word. `stack` closes the file.
    """
    stream = InputStream(path)
    stack.callback(stream.close)
    if rows is not None and stream.total_bytes is not None:
        count = _count_lines(path)
        if count != rows:
            raise InputError(
                f"Number of words ({count}) does not match number of vectors ({rows}): {stream.name}. "
                "Please give one word a line, in the order of the vectors."
            )
    return WordList(stream.name, _plain_words(stream, report))


def find_words(path: Path) -> Path | None:
    """Return the word list next to a matrix file, if it exists.

    For ``model.300d.npy`` it is ``model.300d.txt`` or ``model.txt``: suffixes are removed from the right.
    """
    stem = path.with_suffix("")
    while True:
        candidate = stem.with_name(stem.name + ".txt")
        if candidate.is_file():
            return candidate
        if not stem.suffix:
            return None
        stem = stem.with_suffix("")


def _count_lines(path: str | os.PathLike[str]) -> int:
    with closing(InputStream(path)) as stream:
        count, last = 0, b""
        while data := stream.read(BLOCK_BYTES):
            count += data.count(b"\n")
            last = data[-1:]
    return count + (last not in (b"", b"\n"))


def _line_blocks(stream: InputStream, report: ReadReport) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
    if stream.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
        report.byte_order_mark = True
        stream.read(len(BYTE_ORDER_MARK))
    rest = b""
    while data := stream.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = b""
        rest += data[end:]
    if rest:
        report.missing_newline = True
        yield rest + b"\n"


def _plain_words(stream: InputStream, report: ReadReport) -> Iterator[PackedTokens]:
    for data in _line_blocks(stream, report):
        buf = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(buf == ord("\n"))
        returns = newlines[(newlines > 0) & (buf[newlines - 1] == ord("\r"))] - 1
        report.crlf_lines += len(returns)
        kept = np.ones(len(buf), np.bool_)
        kept[newlines] = kept[returns] = False
        ends = np.cumsum(kept)[newlines]
        yield PackedTokens(buf[kept], offsets_of(np.diff(ends, prepend=0)))
