"""Word lists: the words of a matrix's rows, in order."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import BadLineError, InputError
from smallfry.kernels.numpy.text import NUMBER
from smallfry.readers.formats.layout import find_layout
from smallfry.readers.input.encoding import decode_text
from smallfry.readers.input.foreign import find_foreign
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.json_words import is_json, read_json_words
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, MAX_LINE, Records, join_tokens, pack, slice_tokens
from smallfry.readers.report import ReadReport
from smallfry.readers.word_columns import column_words, cut, line_bounds, shown, strip_spaces
from smallfry.readers.word_layout import HEADINGS, TAB_SHARE, find_columns
from smallfry.vocabulary import PackedTokens

_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 10_000

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "a .npy array"),
    (b"PK\x03\x04", "a zip archive"),
    (b"#version", "a list of BPE merges, not of tokens"),
)


class WordList:
    """The words of a matrix's rows, read in sequence.

    Parameters
    ----------
    name : str
        Name of the list in messages.
    blocks : iterator of PackedTokens
        All words, in blocks of any size; each block fills its `buf`.
    neighbor : bool
        Whether the list was found next to the matrix, so that messages say how to decline it.
    """

    def __init__(self, name: str, blocks: Iterator[PackedTokens], *, neighbor: bool = False) -> None:
        self._name = name
        self._blocks = blocks
        self._neighbor = neighbor
        self._block = pack([])
        self._taken = 0

    def take(self, count: int) -> PackedTokens:
        """Return the next `count` words; raise InputError if the list ends before."""
        parts = []
        with _declinable(self._neighbor):
            while count:
                if not self._advance():
                    raise _wrong_count(self._name, f"{self._taken}", f"more than {self._taken}")
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
        with _declinable(self._neighbor):
            if self._advance():
                raise _wrong_count(self._name, f"more than {self._taken}", f"{self._taken}")

    def _advance(self) -> bool:
        """Ensure that the current block has words; return False at the end of the list."""
        while len(self._block.offsets) < 2:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._block = block
        return True


def open_words(
    path: str | os.PathLike[str] | BinaryIO,
    rows: int | None,
    options: ReadOptions,
    report: ReadReport,
    stack: ExitStack,
) -> WordList:
    """Open a word list, also compressed, for a matrix of `rows` rows; None if their number is unknown.

    The list is text with one word a line, or with the word in one of several columns; JSON; or a text of
    vectors, whose tokens are used. `docs/readers.md` describes what is recognized. An empty line is an empty
    word. `report.words` tells what was found. `stack` closes the file.

    Raises
    ------
    InputError
        The file is not a word list, or the number of its words is not `rows`.
    """
    neighbor = options.words is None
    with _declinable(neighbor):
        stream = InputStream(path)
        stack.callback(stream.close)
        report.encoding = decode_text(stream, options) or report.encoding
        if is_json(stream):
            tokens, kind = read_json_words(stream, rows)
            _check_count(stream.name, len(tokens.offsets) - 1, rows)
            blocks = iter([tokens])
        else:
            _check_foreign(stream)
            blocks, kind = _open_text(stream, _count_lines(stream, options), rows, report)
    report.words = f"{stream.name} ({kind})" if kind else stream.name
    report.words_path = stream.path
    return WordList(stream.name, blocks, neighbor=neighbor)


def is_plain(words: PackedTokens) -> bool:
    """Return whether text with one word a line is read as `words`, which contain no line ends.

    It is not if spaces end a word, or if the first lines look like another kind of list.
    """
    buf, offsets = words
    last = buf[offsets[1:][np.diff(offsets) > 0] - 1]
    if np.isin(last, (ord(" "), ord("\t"))).any() or (buf == ord("\t")).any():
        return False
    first = slice_tokens(words, 0, _SAMPLE_LINES)
    count = len(first.offsets) - 1
    text = b"".join(first.buf[begin:end].tobytes() + b"\n" for begin, end in pairwise(first.offsets))
    report = ReadReport("")
    try:
        with ExitStack() as stack:
            found = open_words(io.BytesIO(text), count, ReadOptions(words=""), report, stack).take(count)
    except InputError:
        return False
    same = np.array_equal(found.offsets, first.offsets) and np.array_equal(found.buf, first.buf)
    return same and report.words == "<input>"


def find_words(path: Path) -> Path | None:
    """Return the word list next to a matrix file, if it exists.

    For ``model.300d.npy`` it is ``model.300d.txt``, ``model.300d.vocab``, ``model.txt`` or ``model.vocab``:
    suffixes are removed from the right.
    """
    stem = path.with_suffix("")
    while True:
        for suffix in (".txt", ".vocab"):
            candidate = stem.with_name(stem.name + suffix)
            if candidate.is_file() and not candidate.samefile(path):
                return candidate
        if not stem.suffix:
            return None
        stem = stem.with_suffix("")


class _Lines(NamedTuple):
    """Number of lines of a file."""

    total: int
    blank: int
    """Empty lines at the end."""


def _open_text(
    stream: InputStream, lines: _Lines | None, rows: int | None, report: ReadReport
) -> tuple[Iterator[PackedTokens], str]:
    """Return the words of a text, and what it is; `lines` is None if their number is unknown."""
    sample = _sample(stream)
    if len(sample) == 1 and b"\r" in sample[0]:
        raise InputError(
            f"{stream.name} ends lines with CR only. Please convert them: tr '\\r' '\\n' < FILE."
        )
    vectors = _open_vectors(stream, sample)
    if vectors is not None:
        if vectors.rows is not None:
            _check_count(stream.name, vectors.rows, rows)
        return _tokens(vectors), f"tokens of text vectors of dim {vectors.dim}"
    if sample and all(b"." in line and NUMBER.fullmatch(line) for line in sample):
        raise InputError(f"{stream.name} has a number in each line, expected words.")
    filled = None if lines is None else lines.total - lines.blank
    one_more = None if filled is None or rows is None else filled == rows + 1
    columns = find_columns(stream.name, sample, one_more) if sample else None
    if columns is not None:
        if filled is not None:
            _check_count(stream.name, filled - (columns.heading is not None), rows)
        blocks = _line_blocks(stream, report, filled)
        return column_words(stream.name, blocks, columns, report), columns.describe()
    if one_more and rows and (sample[0].lower() in HEADINGS or sample[0].split(b" ")[0] == b"%d" % rows):
        stream.read(stream.peek(_HEAD_BYTES).index(b"\n") + 1)
        blocks = _line_blocks(stream, report, rows)
        return _plain_words(stream.name, blocks, report), f"without the header {shown(sample[0])}"
    kept = None
    if lines is not None and rows is not None:
        kept = max(rows, lines.total - lines.blank)
        report.empty_lines += max(0, lines.total - kept)
        _check_count(stream.name, min(lines.total, kept), rows)
    return _plain_words(stream.name, _line_blocks(stream, report, kept), report), ""


def _sample(stream: InputStream) -> list[bytes]:
    """Return the first lines, without line ends."""
    head = stream.peek(_HEAD_BYTES)
    lines = head.removeprefix(BYTE_ORDER_MARK).split(b"\n", _SAMPLE_LINES)
    if len(head) == _HEAD_BYTES or len(lines) > _SAMPLE_LINES or not lines[-1]:
        lines.pop()  # incomplete, or after the last line end
    while lines and not lines[-1].strip(b"\r"):
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def _open_vectors(stream: InputStream, sample: list[bytes]) -> Records | None:
    """Open a text of vectors separated by spaces; None if the list is something else."""
    from smallfry.readers.formats.text import TextRecords  # imports this module

    rows = sample[len(sample) > 1 : 200]
    if not rows or not all(len(row.split()) > 2 and NUMBER.fullmatch(row.split()[-2]) for row in rows):
        return None
    if any(b"\t" in row for row in rows):
        return None
    try:
        layout = find_layout(stream, ReadOptions())
    except InputError:
        return None
    if layout.dim < 2:
        return None
    if not layout.has_tokens:
        raise InputError(f"{stream.name} holds vectors without tokens, expected words.")
    return TextRecords(stream, layout, ReadOptions(), ReadReport(layout.format))


def _tokens(vectors: Records) -> Iterator[PackedTokens]:
    for chunk in vectors.chunks():
        if chunk.tokens is not None:
            yield chunk.tokens


def _plain_words(name: str, blocks: Iterator[bytes], report: ReadReport) -> Iterator[PackedTokens]:
    line, tabbed, first = 1, 0, 0
    for data in blocks:
        buf = np.frombuffer(data, np.uint8)
        begins, ends = line_bounds(buf)
        stripped = strip_spaces(buf, begins, ends)
        report.stripped_words += int((stripped != ends).sum())
        words = cut(buf, begins, stripped)
        lines = _lines_with_tabs(words)
        if len(lines):
            first = first or line + int(lines[0])
            tabbed += len(lines)
        yield words
        line += len(begins)
    if tabbed > max(1, TAB_SHARE * line):
        raise BadLineError(
            f"{name}, line {first}: has columns separated by tabs, as {tabbed:,} of {line - 1:,} lines have. "
            "Please give one word a line, or the same columns in each line."
        )


def _lines_with_tabs(words: PackedTokens) -> NDArray[np.int64]:
    """Return the words that contain a tab after their first character; others are tokens of program code."""
    tabs = np.flatnonzero(words.buf == ord("\t"))
    found: NDArray[np.int64] = np.unique(np.searchsorted(words.offsets, tabs, side="right") - 1)
    start = words.buf[words.offsets[found]]
    inside: NDArray[np.bool_] = (start != ord("\t")) & (start != ord(" "))
    return found[inside]


def _line_blocks(stream: InputStream, report: ReadReport, limit: int | None) -> Iterator[bytes]:
    """Yield blocks of whole lines; at most `limit` lines, of which more are known to be empty."""
    if stream.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
        report.byte_order_mark = True
        stream.read(len(BYTE_ORDER_MARK))
    rest, line = b"", 0
    while data := stream.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            block = rest + data[:end]
            rest = b""
            count = block.count(b"\n")
            report.crlf_lines += block.count(b"\r\n") if b"\r" in block else 0
            if limit is not None and line + count > limit:
                if limit > line:
                    yield b"\n".join(block.split(b"\n", limit - line)[:-1]) + b"\n"
                return
            yield block
            line += count
        rest += data[end:]
        if len(rest) > MAX_LINE:
            raise BadLineError(f"{stream.name}, line {line + 1}: longer than {MAX_LINE:,} bytes.")
    if rest:
        report.missing_newline = True
        yield rest + b"\n"


def _count_lines(opened: InputStream, options: ReadOptions) -> _Lines | None:
    """Return the lines of a file, which is opened again; None for a pipe, which can be read once."""
    if opened.path is None or opened.total_bytes is None:
        return None
    with closing(InputStream(opened.path)) as stream:
        decode_text(stream, options)
        count = blank = 0
        empty, last = True, b"\n"
        while data := stream.read(BLOCK_BYTES):
            newlines = data.count(b"\n")
            count += newlines
            filled = len(data.rstrip(b"\r\n"))
            blank = data.count(b"\n", filled) + (0 if filled else blank)
            empty, last = empty and not filled, data[-1:]
    return _Lines(count + (last != b"\n"), blank if empty else max(0, blank - 1))


def _check_foreign(stream: InputStream) -> None:
    head = stream.peek(1 << 12)
    found = next((what for magic, what in _FOREIGN if head.startswith(magic)), find_foreign(stream))
    if found is not None:
        what = found.partition(". ")[0].rstrip(".")
        raise InputError(f"{stream.name} is {what}, expected a word list. Please give one word a line.")
    control = sum(byte < 32 and byte not in b"\t\n\r" for byte in head)
    if control > len(head) / 10:
        raise InputError(f"{stream.name} is a binary file, expected a word list with one word a line.")


def _check_count(name: str, words: int, rows: int | None) -> None:
    if rows is not None and words != rows:
        raise _wrong_count(name, f"{words}", f"{rows}")


def _wrong_count(name: str, words: str, rows: str) -> InputError:
    return InputError(
        f"Number of words ({words}) does not match number of vectors ({rows}): {name}. "
        "Please give one word a line, in the order of the vectors."
    )


@contextmanager
def _declinable(neighbor: bool) -> Iterator[None]:
    """Add to an InputError how to decline a list that was found next to the matrix."""
    try:
        yield
    except InputError as error:
        if not neighbor:
            raise
        raise type(error)(
            f"{error} The file is next to the matrix, so its words are read: pass --words FILE (words=) "
            "for another list, or --no-words (words=False)."
        ) from None
