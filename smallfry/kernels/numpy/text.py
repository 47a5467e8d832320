"""Parse and format lines of `token value … value`, and check UTF-8, in Python."""

from __future__ import annotations

import re
from binascii import b2a_base64
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import Offsets, offsets_of

NUMBER = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:nan|inf|infinity))")

_BLANKS = b" \t"


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
    """Tokens that contain spaces or tabs."""
    unquoted: int
    """Tokens whose quotes were removed."""


def parse_lines(
    text: NDArray[np.uint8], dim: int, delimiter: int = 0, has_tokens: bool = True, quoted: bool = False
) -> ParsedLines:
    r"""Parse lines that end with ``\n``.

    The last `dim` fields of a line are its vector, the text before them its token, which may contain
    separators. A field after the first that is a number with a decimal point is a value, not a part of the
    token. Values are plain decimal numbers, nan and inf, and equal ``np.float32(float(field))``.

    Parameters
    ----------
    text : ndarray of uint8 [bytes]
    dim : int
    delimiter : int
        The byte that separates fields; 0 for runs of ASCII spaces and tabs. With spaces, a line that begins
        with one and has only values has a blank token: the spaces before the separator, after a newline for
        each empty line directly before.
    has_tokens : bool
        False for lines of only values.
    quoted : bool
        Remove the quotes around tokens and values.
    """
    data = text.tobytes()
    if dim < 1 or (data and not data.endswith(b"\n")):
        raise InputError("parsing needs a dim of at least 1 and text that ends with a newline")
    vectors: list[list[float]] = []
    tokens: list[bytes] = []
    rows: list[int] = []
    problems: list[tuple[int, int, int]] = []
    lines = data.split(b"\n")[:-1]
    named = int(has_tokens)
    crlf = empty = spaced = unquoted = newlines = 0
    for number, line in enumerate(lines):
        crlf += line.endswith(b"\r")
        line = line.removesuffix(b"\r")
        fields = split_fields(line, delimiter)
        first = len(fields) - dim
        values = [field_value(field, quoted) for field in fields[max(first, 0) :]]
        good = [NUMBER.fullmatch(value) for value in values]
        escaped = quoted and has_tokens and bool(fields) and fields[0].startswith(b'"')
        token = None
        if not fields:
            empty += 1
        elif first < named:
            if has_tokens and delimiter == 0 and first == 0 and line[:1] in (b" ", b"\t") and all(good):
                token = b"\n" * newlines + line[: len(line) - len(line.lstrip(_BLANKS)) - 1]
                empty -= newlines
            else:
                problems.append((number, Problem.TOO_FEW, len(fields) - named))
        elif not has_tokens and first > 0:
            problems.append((number, Problem.TOO_MANY, len(fields)))
        elif not escaped and any(
            b"." in field and NUMBER.fullmatch(field_value(field, quoted)) for field in fields[1:first]
        ):
            problems.append((number, Problem.TOO_MANY, len(fields) - 1))
        elif not all(good):
            problems.append((number, Problem.NOT_A_NUMBER, good.index(None)))
        elif has_tokens:
            token = bytes([delimiter]).join(fields[:first]) if delimiter else _token(line, fields[first:])
        else:
            token = b""
        if token is not None:
            spaced += any(blank in token for blank in (b" ", b"\t"))
            if quoted and is_quoted(token):
                unquoted += 1
                token = re.sub(rb'""|\\"' if delimiter == 0 else rb'""', b'"', token[1:-1])
            vectors.append([float(value) for value in values])
            tokens.append(token)
            rows.append(number)
        newlines = newlines + 1 if not lines[number] else 0
    with np.errstate(over="ignore"):
        array = np.array(vectors, np.float64).astype(np.float32)
    return ParsedLines(
        array.reshape(len(rows), dim),
        np.frombuffer(b"".join(tokens), np.uint8),
        offsets_of(list(map(len, tokens))),
        np.array(rows, np.int64),
        np.array(problems, np.int64).reshape(-1, 3),
        len(lines),
        empty,
        crlf,
        spaced,
        unquoted,
    )


def format_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return rows as text: their values, with spaces between them.

    Parameters
    ----------
    vectors : ndarray of float32, shape [rows, dim]
        C-contiguous.

    Returns
    -------
    buf : ndarray of uint8
        Each value has the fewest digits that read as the same float32, as Python's ``repr`` lays them out.
    offsets : ndarray of int64, shape [rows + 1]
        Row i is ``buf[offsets[i]:offsets[i + 1]]``.
    """
    # str gives the shortest digits of a float32; its layout depends on NumPy's version.
    rows = [" ".join(repr(float(str(value))) for value in row).encode() for row in vectors]
    return np.frombuffer(b"".join(rows), np.uint8), offsets_of(list(map(len, rows)))


def format_json(vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return rows as JSON: an array for each row, and a comma after it.

    Parameters
    ----------
    vectors : ndarray of float32, shape [rows, dim]
        C-contiguous.

    Returns
    -------
    buf : ndarray of uint8
        Each value has the fewest digits that read as the same float32, and an exponent below 1e-6 and from
        1e13, as orjson writes it. Values that are not finite are null.
    offsets : ndarray of int64, shape [rows + 1]
        Row i, with its comma, is ``buf[offsets[i]:offsets[i + 1]]``.
    """
    rows = [f"[{','.join(map(_json_number, row))}],".encode() for row in vectors]
    return np.frombuffer(b"".join(rows), np.uint8), offsets_of(list(map(len, rows)))


def encode_base64(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the bytes of rows in base64, ASCII.

    Parameters
    ----------
    vectors : ndarray of float32, shape [rows, dim]
        C-contiguous.

    Returns
    -------
    ndarray of uint8, shape [rows, 4 * ceil(4 * dim / 3)]
    """
    rows = b"".join(b2a_base64(row, newline=False) for row in vectors)
    return np.frombuffer(rows, np.uint8).reshape(len(vectors), -(-4 * vectors.shape[1] // 3) * 4)


def invalid_utf8(buf: NDArray[np.uint8], offsets: Offsets) -> NDArray[np.int64]:
    """Return the positions of the tokens that are not valid UTF-8."""
    data = buf.tobytes()
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    invalid = [i for i, (begin, end) in enumerate(bounds) if not _is_utf8(data[begin:end])]
    return np.array(invalid, np.int64)


def count_values(json: bytes) -> int:
    """Return the number of commas and opening brackets outside of strings, which bounds that of values."""
    # What a backslash precedes ends no string.
    unescaped = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    data = np.frombuffer(unescaped, np.uint8)
    outside = data[np.cumsum(data == ord('"'), dtype=np.uint8) % 2 == 0]
    return int(np.isin(outside, np.frombuffer(b",[{", np.uint8)).sum())


def is_quoted(field: bytes) -> bool:
    """Return whether a field is in double quotes."""
    return len(field) >= 2 and field.startswith(b'"') and field.endswith(b'"')


def split_fields(line: bytes, delimiter: int) -> list[bytes]:
    """Return the fields of a line; none if it is blank, and without a blank last one."""
    if delimiter == 0:
        return [field for field in line.replace(b"\t", b" ").split(b" ") if field]
    fields = line.split(bytes([delimiter]))
    if not any(field.strip(_BLANKS) for field in fields):
        return []
    return fields if fields[-1].strip(_BLANKS) else fields[:-1]


def field_value(field: bytes, quoted: bool) -> bytes:
    """Return a field without the spaces around it, and without quotes if it is quoted."""
    field = field.strip(_BLANKS)
    return field[1:-1] if quoted and is_quoted(field) else field


def _json_number(value: np.float32) -> str:
    if not np.isfinite(value):
        return "null"
    digits, exponent = np.format_float_scientific(value, trim="-").split("e")
    if -6 <= int(exponent) < 13:
        return np.format_float_positional(value, trim="0")
    return f"{digits}e{int(exponent):+d}"


def _token(line: bytes, values: list[bytes]) -> bytes:
    line = line.strip(_BLANKS)
    for value in reversed(values):
        line = line.removesuffix(value).rstrip(_BLANKS)
    return line


def _is_utf8(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
