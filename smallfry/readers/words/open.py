"""Open a word list of any kind."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smallfry.errors import InputError
from smallfry.readers.formats.layout import find_layout
from smallfry.readers.formats.text import TextRecords
from smallfry.readers.input.encoding import decode_text
from smallfry.readers.input.foreign import find_foreign
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import slice_tokens, unpack
from smallfry.readers.report import ReadReport
from smallfry.readers.words.columns import NUMBER, column_words, shown
from smallfry.readers.words.json import is_json, read_json_words
from smallfry.readers.words.layout import HEADINGS, find_columns
from smallfry.readers.words.lines import count_lines, line_blocks, plain_words
from smallfry.readers.words.list import WordList, declinable, wrong_count
from smallfry.vocabulary import PackedTokens

_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 10_000

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "a .npy array"),
    (b"PK\x03\x04", "a zip archive"),
    (b"#version", "a list of BPE merges, not of tokens"),
)


def open_words(
    path: str | os.PathLike[str] | BinaryIO,
    rows: int | None,
    options: ReadOptions,
    report: ReadReport,
    stack: ExitStack,
) -> WordList:
    """Open a word list, also compressed, for a matrix of `rows` rows; None if their number is unknown.

    The list is text with one word a line, or with the word in one of several columns; JSON; or a text of
    vectors, whose tokens are used. `docs/reference/files.md` describes what is recognized. An empty
    line is an empty word. `report.words` tells what was found. `stack` closes the file.

    Raises
    ------
    InputError
        The file is not a word list, or the number of its words is not `rows`.
    """
    neighbor = options.words is None
    with declinable(neighbor):
        stream = InputStream(path)
        stack.callback(stream.close)
        report.encoding = decode_text(stream, options) or report.encoding
        if is_json(stream):
            tokens, kind = read_json_words(stream, rows)
            _check_count(stream.name, len(tokens.offsets) - 1, rows)
            blocks = iter([tokens])
        else:
            _check_foreign(stream)
            blocks, kind = _open_text(stream, rows, options, report)
    report.words = f"{stream.name} ({kind})" if kind else stream.name
    report.words_path = stream.path
    return WordList(stream.name, blocks, neighbor=neighbor)


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


def is_plain(words: PackedTokens) -> bool:
    """Return whether text with one word a line is read as `words`, which contain no line ends.

    It is not if spaces end a word, or if the first lines look like another kind of list.
    """
    buf, offsets = words
    last = buf[offsets[1:][np.diff(offsets) > 0] - 1]
    if (last == ord(" ")).any() or (buf == ord("\t")).any():
        return False
    first = slice_tokens(words, 0, _SAMPLE_LINES)
    count = len(first.offsets) - 1
    text = b"".join(word + b"\n" for word in unpack(first))
    report = ReadReport("")
    try:
        with ExitStack() as stack:
            found = open_words(io.BytesIO(text), count, ReadOptions(words=""), report, stack).take(count)
    except InputError:
        return False
    same = np.array_equal(found.offsets, first.offsets) and np.array_equal(found.buf, first.buf)
    return same and report.words == "<input>"


def _open_text(
    stream: InputStream, rows: int | None, options: ReadOptions, report: ReadReport
) -> tuple[Iterator[PackedTokens], str]:
    """Return the words of a text, and what it is."""
    sample = _sample(stream)
    vectors = _open_vectors(stream)
    if vectors is not None:
        if vectors.rows is not None:
            _check_count(stream.name, vectors.rows, rows)
        tokens = (chunk.tokens for chunk in vectors.chunks() if chunk.tokens is not None)
        return tokens, f"tokens of text vectors of dim {vectors.dim}"
    if sample and all("." in line and NUMBER.fullmatch(line) for line in sample):
        raise InputError(f"{stream.name} has a number in each line, expected words.")
    counted = count_lines(stream, options)
    one_more = None if counted is None or rows is None else counted[1] == rows + 1
    columns = find_columns(stream.name, sample, one_more) if sample else None
    if columns is not None:
        heading, kind = columns.heading, columns.describe()
    elif one_more and rows and (sample[0].lower() in HEADINGS or sample[0].split(" ")[0] == str(rows)):
        heading, kind = sample[0], f"without the header {shown(sample[0])}"
        stream.read(stream.peek(_HEAD_BYTES).index(b"\n") + 1)
    else:
        heading, kind = None, ""
    limit = None
    if counted is not None:
        total, filled = counted
        limit = filled if kind or rows is None else min(total, max(rows, filled))
        report.empty_lines += total - limit
        _check_count(stream.name, limit - (heading is not None), rows)
    if columns is not None:
        return column_words(stream.name, line_blocks(stream, report, limit), columns, report), kind
    if heading is not None:
        limit = rows
    return plain_words(stream.name, line_blocks(stream, report, limit), report), kind


def _sample(stream: InputStream) -> list[str]:
    """Return the first lines, without line ends."""
    head = stream.peek(_HEAD_BYTES)
    lines = head.removeprefix(BYTE_ORDER_MARK).replace(b"\r\n", b"\n").split(b"\n", _SAMPLE_LINES)
    if len(head) == _HEAD_BYTES or len(lines) > _SAMPLE_LINES:
        lines.pop()  # may be incomplete
    while lines and not lines[-1].strip(b"\r"):
        lines.pop()
    return [line.decode(errors="surrogateescape") for line in lines]


def _open_vectors(stream: InputStream) -> TextRecords | None:
    """Open a text of vectors separated by spaces; None if the list is something else."""
    try:
        layout = find_layout(stream, ReadOptions())
    except InputError:
        return None
    if layout.dim < 2 or layout.delimiter != 0:
        return None
    if not layout.has_tokens:
        raise InputError(f"{stream.name} holds vectors without tokens, expected words.")
    return TextRecords(stream, layout, ReadOptions(), ReadReport(layout.format))


def _check_foreign(stream: InputStream) -> None:
    head = stream.peek(1 << 12)
    what = next((what for magic, what in _FOREIGN if head.startswith(magic)), find_foreign(stream))
    if what is None and sum(byte < 32 and byte not in b"\t\n\r" for byte in head) > len(head) / 10:
        what = "a binary file"
    if what is not None:
        what = what.partition(". ")[0].rstrip(".")
        raise InputError(f"{stream.name} is {what}, expected a word list. Please give one word a line.")


def _check_count(name: str, words: int, rows: int | None) -> None:
    if rows is not None and words != rows:
        raise wrong_count(name, f"{words}", f"{rows}")
