"""The lines of a word list, and lists of one word a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from smallfry.errors import BadLineError
from smallfry.offsets import offsets_of
from smallfry.readers.input.encoding import decode_text
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, MAX_LINE
from smallfry.readers.report import ReadReport
from smallfry.vocabulary import PackedTokens

_SPACES_AFTER_WORD = re.compile(rb"(?<=[^ \t\n])[ \t]+(?=\n)")
_TAB_IN_WORD = re.compile(rb"^[^ \t\n][^\t\n]*\t", re.MULTILINE)  # tokens of code begin with spaces or tabs
_TAB_SHARE = 0.01


def count_lines(opened: InputStream, options: ReadOptions) -> tuple[int, int] | None:
    """Return the lines of a file, all and up to the last that is not empty; None for a pipe.

    The file is opened again: a stream is read once.
    """
    if opened.path is None or opened.total_bytes is None:
        return None
    with closing(InputStream(opened.path)) as stream:
        decode_text(stream, options)
        newlines = filled = 0
        last = b"\n"
        while data := stream.read(BLOCK_BYTES):
            newlines += data.count(b"\n")
            end = len(data.rstrip(b"\r\n"))
            if end:
                filled = newlines - data.count(b"\n", end) + 1
            last = data[-1:]
    return newlines + (last != b"\n"), filled


def line_blocks(stream: InputStream, report: ReadReport, limit: int | None) -> Iterator[bytes]:
    r"""Yield blocks of whole lines that end with ``\n``; of the whole list, at most `limit` lines."""
    if stream.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
        report.byte_order_mark = True
        stream.read(len(BYTE_ORDER_MARK))
    rest, line = b"", 0
    while (limit is None or line < limit) and (data := stream.read(BLOCK_BYTES)):
        data = rest + data
        end = data.rfind(b"\n") + 1
        block, rest = data[:end], data[end:]
        if len(rest) > MAX_LINE:
            raise BadLineError(f"{stream.name}, line {line + 1}: longer than {MAX_LINE:,} bytes.")
        count = block.count(b"\n")
        if limit is not None and line + count > limit:
            block = b"\n".join(block.split(b"\n", limit - line)[:-1]) + b"\n"
        if block:
            report.crlf_lines += block.count(b"\r\n")
            yield block.replace(b"\r\n", b"\n")
            line += count
    if rest and (limit is None or line < limit):
        report.missing_newline = True
        yield rest.removesuffix(b"\r") + b"\n"


def plain_words(name: str, blocks: Iterator[bytes], report: ReadReport) -> Iterator[PackedTokens]:
    """Yield each line as a word, without spaces and tabs at its end; a line of only these is kept.

    Raises
    ------
    BadLineError
        More than 1 % of the words contain tabs, as columns do.
    """
    line = first_tabbed = tabbed = 0
    for block in blocks:
        if b" \n" in block or b"\t\n" in block:
            block, stripped = _SPACES_AFTER_WORD.subn(b"", block)
            report.stripped_words += stripped
        if b"\t" in block and (found := _TAB_IN_WORD.search(block)):
            first_tabbed = first_tabbed or line + block.count(b"\n", 0, found.start()) + 1
            tabbed += len(_TAB_IN_WORD.findall(block))
        buf = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(buf == ord("\n"))
        line += len(ends)
        yield PackedTokens(buf[buf != ord("\n")], offsets_of(np.diff(ends, prepend=-1) - 1))
    if tabbed > _TAB_SHARE * line:
        raise BadLineError(
            f"{name}, line {first_tabbed}: has columns separated by tabs, as {tabbed:,} of {line:,} lines "
            "have. Please give one word a line, or the same columns in each line."
        )
