"""Files of word similarity and analogy tests, as lines of fields."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from smallfry.errors import BadLineError, InputError
from smallfry.readers.input.encoding import check_encoding, decode_text
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.options import ReadOptions

_MAX_BYTES = 1 << 26
_MAX_LINE = 10_000


class Line(NamedTuple):
    """A line of a test file."""

    number: int
    """Counted from 1."""
    text: str
    fields: list[str]


def read_lines(path: str | Path, columns: int, encoding: str | None) -> list[Line]:
    """Return the lines that are neither empty nor comments (``#``), split into fields.

    Tabs, commas or semicolons separate fields if nearly every line has at least `columns` of them, otherwise
    spaces. Quotes around fields are removed, and a first column that numbers the lines is dropped.

    Raises
    ------
    InputError
        The file is not text in `encoding` (UTF-8 by default), or it has numbers before the words.
    OSError
        The file cannot be read.
    """
    texts = [
        (number, line.strip())
        for number, line in enumerate(_text(path, encoding), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not texts:
        raise InputError(f"{path} is empty, expected word tests.")
    delimiter = _delimiter([text for _, text in texts if not text.startswith(":")], columns)
    lines = [Line(number, text, _fields(text, delimiter)) for number, text in texts]
    return _without_row_numbers(path, lines)


def _text(path: str | Path, encoding: str | None) -> list[str]:
    if encoding is not None:
        check_encoding(encoding)
    with closing(InputStream(path)) as stream:
        decode_text(stream, ReadOptions(encoding=encoding))
        data = stream.read(_MAX_BYTES + 1).removeprefix(BYTE_ORDER_MARK)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path} has more than {_MAX_BYTES:,} bytes, expected a file of word tests.")
    if b"\0" in data:
        raise InputError(f"{path} is a binary file, expected text with a word test on each line.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        count = data.count(b"\n", 0, error.start) + 1
        raise BadLineError(
            f"{path}, line {count}: not valid UTF-8. Please name the encoding of the file with encoding= "
            "(--test-encoding), for example latin-1 or cp1252."
        ) from None
    lines: list[str] = re.split("\r\n|\r|\n", text)
    for number, line in enumerate(lines, 1):
        if len(line) > _MAX_LINE:
            raise BadLineError(f"{path}, line {number}: longer than {_MAX_LINE:,} characters.")
    return lines


def _delimiter(lines: Sequence[str], columns: int) -> str:
    for delimiter in ("\t", ",", ";"):
        if sum(line.count(delimiter) >= columns - 1 for line in lines) > 0.9 * len(lines):
            return delimiter
    return " "


def _fields(text: str, delimiter: str) -> list[str]:
    if delimiter == " " and not text.startswith('"'):
        return text.split()
    fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    return [field.strip() for field in fields]


def _without_row_numbers(path: str | Path, lines: list[Line]) -> list[Line]:
    rows = [line for line in lines if not line.text.startswith(":")]
    if rows and not rows[0].fields[0].isdecimal():
        rows = rows[1:]  # below a header
    if len(rows) < 2 or not all(line.fields[0].isdecimal() for line in rows):
        return lines
    numbers = [int(line.fields[0]) for line in rows]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BadLineError(
            f"{path}, line {rows[0].number}: a number before the words: {rows[0].text[:80]!r}. "
            "Please remove that column."
        )
    return [line._replace(fields=line.fields[1:]) for line in lines]
