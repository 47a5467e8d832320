"""Word lists for the rows of a matrix: text, one word a line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from smallfry.readers.records import BLOCK_BYTES
from smallfry.readers.report import ReadReport
from smallfry.readers.stream import BYTE_ORDER_MARK, InputStream
from smallfry.vocabulary import PackedTokens


def read_words(path: str | os.PathLike[str], report: ReadReport) -> PackedTokens:
    """Read a word list, also gzipped. An empty line is an empty word; a final newline adds no word."""
    stream = InputStream(path)
    try:
        data = b"".join(iter(lambda: stream.read(BLOCK_BYTES), b""))
    finally:
        stream.close()
    report.byte_order_mark |= data.startswith(BYTE_ORDER_MARK)
    data = data.removeprefix(BYTE_ORDER_MARK)
    if data and not data.endswith(b"\n"):
        report.missing_newline = True
        data += b"\n"
    buf = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(buf == ord("\n"))
    returns = newlines[(newlines > 0) & (buf[newlines - 1] == ord("\r"))] - 1
    report.crlf_lines += len(returns)
    kept = np.ones(len(buf), np.bool_)
    kept[newlines] = kept[returns] = False
    ends = np.cumsum(kept)[newlines]
    return PackedTokens(buf[kept], np.concatenate([np.zeros(1, np.int64), ends]))


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
