"""Parse lines of `token value … value` and check UTF-8 in Python."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import offsets_of

NUMBER = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:nan|inf|infinity))")


class Problem(IntEnum):
    """Defect of a line."""

    TOO_FEW = 0
    TOO_MANY = 1
    NOT_A_NUMBER = 2


class ParsedLines(NamedTuple):
    """The rows of a text, and counts of its irregularities."""

    vectors: NDArray[np.float32]
    """float32 ``[rows, dim]``; values beyond float32 are infinite."""
    buf: NDArray[np.uint8]
    """The bytes of the tokens, unchanged, possibly invalid UTF-8."""
    offsets: NDArray[np.int64]
    """int64 ``[rows + 1]``, into `buf`."""
    lines: NDArray[np.int64]
    """int64 ``[rows]``: the line of each row, counted from 0."""
    problems: NDArray[np.int64]
    """int64 ``[problems, 3]``: line, `Problem`, and the value count or the position of the invalid one."""
    line_count: int
    empty: int
    """Lines of separators only."""
    crlf: int
    """Lines that end in CRLF."""
    spaced: int
    """Rows whose token contains separators."""


def parse_lines(text: NDArray[np.uint8], dim: int) -> ParsedLines:
    r"""Parse lines that end with ``\n``.

    ASCII spaces and tabs separate fields. The last `dim` fields of a line are its vector, the text before
    them its token, which may contain separators. A field after the first that is a number with a decimal
    point is a value, not a part of the token. Values are plain decimal numbers, nan and inf, and equal
    ``np.float32(float(field))``.
    """
    data = text.tobytes()
    if dim < 1 or (data and not data.endswith(b"\n")):
        raise InputError("parsing needs a dim of at least 1 and text that ends with a newline")
    vectors: list[list[float]] = []
    tokens: list[bytes] = []
    rows: list[int] = []
    problems: list[tuple[int, int, int]] = []
    lines = data.split(b"\n")[:-1]
    crlf = empty = spaced = 0
    for number, line in enumerate(lines):
        crlf += line.endswith(b"\r")
        line = line.removesuffix(b"\r").strip(b" \t")
        fields = [field for field in line.replace(b"\t", b" ").split(b" ") if field]
        first = len(fields) - dim
        if not fields:
            empty += 1
        elif first < 1:
            problems.append((number, Problem.TOO_FEW, len(fields) - 1))
        elif any(b"." in field and NUMBER.fullmatch(field) for field in fields[1:first]):
            problems.append((number, Problem.TOO_MANY, len(fields) - 1))
        elif not all(good := [NUMBER.fullmatch(field) for field in fields[first:]]):
            problems.append((number, Problem.NOT_A_NUMBER, good.index(None)))
        else:
            vectors.append([float(field) for field in fields[first:]])
            tokens.append(_token(line, fields[first:]))
            rows.append(number)
            spaced += first > 1
    with np.errstate(over="ignore"):
        values = np.array(vectors, np.float64).astype(np.float32)
    return ParsedLines(
        values.reshape(len(rows), dim),
        np.frombuffer(b"".join(tokens), np.uint8),
        offsets_of(list(map(len, tokens))),
        np.array(rows, np.int64),
        np.array(problems, np.int64).reshape(-1, 3),
        len(lines),
        empty,
        crlf,
        spaced,
    )


def invalid_utf8(buf: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the tokens that are not valid UTF-8."""
    data = buf.tobytes()
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    invalid = [i for i, (begin, end) in enumerate(bounds) if not _is_utf8(data[begin:end])]
    return np.array(invalid, np.int64)


def _token(line: bytes, values: list[bytes]) -> bytes:
    for value in reversed(values):
        line = line.removesuffix(value).rstrip(b" \t")
    return line


def _is_utf8(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
