"""The columns of a word list whose lines hold more than a word, and how the words are cut out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import BadLineError, InputError
from smallfry.kernels.numpy.text import NUMBER
from smallfry.offsets import offsets_of
from smallfry.readers.records import pack
from smallfry.readers.report import ReadReport
from smallfry.vocabulary import PackedTokens

_BATCH_LINES = 1 << 16
_MAX_DIGITS = 18
_ORDINALS = ("first", "second", "third")

_Ints = NDArray[np.int64]
Cut = Literal["fields", "first", "last", "csv"]


class Columns(NamedTuple):
    """Where the word of each line is."""

    cut: Cut
    """Fields of a fixed number; or two, split at the first or the last delimiter; or fields in quotes."""
    delimiter: bytes
    width: int
    """Number of fields."""
    word: int
    """Position of the word's field."""
    numbers: dict[int, Numbers]
    """Checks of the fields that are numbers, by position."""
    heading: bytes | None = None
    """The first line, if it names the columns."""
    escaped: bool = False
    r"""Whether a quote within quotes is ``\"``."""

    def describe(self) -> str:
        """Return a phrase for the report."""
        if self.width == 1:
            phrase = "in quotes"
        else:
            which = _ORDINALS[self.word] if self.word < len(_ORDINALS) else f"number {self.word + 1}"
            phrase = f"{which} of {self.width} columns"
        if self.heading is not None:
            phrase += f", without the header {shown(self.heading)}"
        return phrase


class Numbers:
    """A column of numbers next to the words.

    Integers that are row numbers must be those of the lines: another order than the matrix's is an error.

    Parameters
    ----------
    fields : list of bytes
        The column in the first lines.
    ordered : bool
        Whether integers that are not row numbers must be sorted, as counts are.
    """

    def __init__(self, fields: list[bytes], *, ordered: bool) -> None:
        self.integers = all(field.isdigit() and len(field) <= _MAX_DIGITS for field in fields)
        values = list(map(int, fields)) if self.integers else []
        rising = len(values) > 1 and all(b > a for a, b in pairwise(values))
        self.start = values[0] if rising and values[0] in (0, 1) else None  # the number of the first line
        self.falling = self.integers and all(a >= b for a, b in pairwise(values))
        self._ordered = ordered and self.start is None
        self._count = self._sum = self._squares = self._most = 0
        self._least = self._last = 2**63 - 1

    def check(self, values: _Ints) -> tuple[int, str] | None:
        """Check the integers of the next lines; return the position of a wrong one and what is wrong."""
        if not len(values):
            return None
        if self.start is not None:
            expected = np.arange(len(values)) + (self._count + self.start)
            self._count += len(values)
            wrong = np.flatnonzero(values != expected)
            if not len(wrong):
                return None
            first = int(wrong[0])
            return first, f"row number {values[first]}, expected {expected[first]}, its place in the list"
        rises = np.flatnonzero(np.diff(values, prepend=self._last) > 0)
        if self._ordered and len(rises):
            return int(rises[0]), "a number before the word that is neither a row number nor a sorted count"
        self.falling = self.falling and not len(rises)
        self._last = int(values[-1])
        self._least, self._most = min(self._least, int(values.min())), max(self._most, int(values.max()))
        self._count += len(values)
        unsigned = values.astype(np.uint64)
        self._sum += int(unsigned.sum())
        self._squares += int((unsigned * unsigned).sum())
        return None

    def are_shuffled_rows(self) -> bool:
        """Return whether the column has each row number once, in another order than the lines.

        Equal sums and sums of squares, modulo 2**64, are taken for equal sets of numbers.
        """
        low, high = self._least, self._most
        if self.start is not None or self.falling or low > 1 or high - low + 1 != self._count:
            return False
        squares = high * (high + 1) * (2 * high + 1) // 6
        return (
            not (self._sum - self._count * (low + high) // 2) % 2**64
            and not (self._squares - squares) % 2**64
        )


def column_words(
    name: str, blocks: Iterable[bytes], columns: Columns, report: ReadReport
) -> Iterator[PackedTokens]:
    """Yield the words of blocks of whole lines, whose lines end with a newline."""
    if columns.cut == "csv":
        yield from _csv_words(name, blocks, columns)
    else:
        yield from _cut_words(name, blocks, columns, report)
    if any(numbers.are_shuffled_rows() for numbers in columns.numbers.values()):
        raise InputError(f"{name} has row numbers in another order than its lines. Please sort it by them.")


def _cut_words(
    name: str, blocks: Iterable[bytes], columns: Columns, report: ReadReport
) -> Iterator[PackedTokens]:
    line = 1
    for data in blocks:
        buf = np.frombuffer(data, np.uint8)
        begins, ends = line_bounds(buf)
        if columns.delimiter == b" ":
            ends = strip_spaces(buf, begins, ends)
        if line == 1 and columns.heading is not None:
            begins, ends = begins[1:], ends[1:]
            line = 2
        fields = _fields(buf, begins, ends, columns)
        if isinstance(fields, int):
            raise _wrong_line(name, data, fields, line, begins, ends, "another number of columns than before")
        for column, numbers in columns.numbers.items():
            problem = _check_numbers(buf, fields[column], numbers)
            if problem is not None:
                raise _wrong_line(name, data, problem[0], line, begins, ends, problem[1])
        begins, ends = fields[columns.word]
        stripped = strip_spaces(buf, begins, ends)
        report.stripped_words += int((stripped != ends).sum())
        yield cut(buf, begins, stripped)
        line += len(ends)


def _fields(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints, columns: Columns) -> list[list[_Ints]] | int:
    """Return begins and ends of each column, or the position of a line without those columns."""
    marks = np.flatnonzero(buf == ord(columns.delimiter))
    if columns.cut == "first":
        begins = _skip_spaces(buf, begins, ends)
    lines = np.searchsorted(ends, marks)
    inside = lines < len(ends)
    marks, lines = marks[inside], lines[inside]
    inside = marks >= begins[lines]
    marks, lines = marks[inside], lines[inside]
    if columns.cut == "fields":
        wrong = np.flatnonzero(np.bincount(lines, minlength=len(ends)) != columns.width - 1)
        if len(wrong):
            return int(wrong[0])
        grid = marks.reshape(len(ends), columns.width - 1).T
        return [list(pair) for pair in zip([begins, *(grid + 1)], [*grid, ends], strict=True)]
    split = np.full(len(ends), -1)
    if columns.cut == "last":
        split[lines] = marks
    else:
        split[lines[::-1]] = marks[::-1]
    wrong = np.flatnonzero(split < 0)
    if len(wrong):
        return int(wrong[0])
    return [[begins, split], [split + 1, ends]]


def _check_numbers(buf: NDArray[np.uint8], bounds: list[_Ints], numbers: Numbers) -> tuple[int, str] | None:
    begins, ends = bounds
    values = _integers(buf, begins, ends) if numbers.integers else None
    wrong = np.flatnonzero(~_are_numbers(buf, begins, ends) if values is None else values < 0)
    if len(wrong):
        return int(wrong[0]), "no number where other lines have one"
    return None if values is None else numbers.check(values)


def _integers(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints) -> _Ints:
    """Return the value of each slice; -1 if it is not of 1 to 18 digits."""
    lengths = ends - begins
    values = np.where((lengths > 0) & (lengths <= _MAX_DIGITS), 0, -1)
    for place in range(min(int(lengths.max(initial=0)), _MAX_DIGITS)):
        inside = np.flatnonzero((lengths > place) & (values >= 0))
        digits = buf[begins[inside] + place] - np.uint8(ord("0"))
        values[inside] = np.where(digits < 10, 10 * values[inside] + digits, -1)
    return values


def _are_numbers(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints) -> NDArray[np.bool_]:
    """Return whether each slice has digits, and else only the other characters of numbers."""
    kinds = np.full(256, 2, np.uint8)
    kinds[list(b"0123456789")], kinds[list(b"+-.eE")] = 1, 0
    kind = kinds[buf]
    digits, others = (np.append(0, np.cumsum(kind == i, dtype=np.int32)) for i in (1, 2))
    found: NDArray[np.bool_] = (digits[ends] > digits[begins]) & (others[ends] == others[begins])
    return found


def _csv_words(name: str, blocks: Iterable[bytes], columns: Columns) -> Iterator[PackedTokens]:
    rows = csv.reader(
        _decoded_lines(blocks, columns.escaped), delimiter=columns.delimiter.decode(), strict=True
    )
    try:
        if columns.heading is not None:
            next(rows)
        while batch := list(islice(rows, _BATCH_LINES)):
            begin = rows.line_num - len(batch) + 1
            for i, row in enumerate(batch):
                if len(row) != columns.width:
                    if not row and columns.width == 1:
                        row.append("")
                        continue
                    shown = columns.delimiter.decode().join(row).encode("latin-1")
                    raise deviation(
                        name, begin + i, shown, f"{len(row)} columns, other lines {columns.width}"
                    )
            for column, numbers in columns.numbers.items():
                _check_fields(name, begin, [row[column] for row in batch], numbers)
            yield pack([row[columns.word].encode("latin-1") for row in batch])
    except csv.Error as error:
        raise BadLineError(f"{name}, line {rows.line_num}: {error}. Please correct the quotes.") from None


def _decoded_lines(blocks: Iterable[bytes], escaped: bool) -> Iterator[str]:
    for data in blocks:
        text = data.decode("latin-1")
        yield from (text.replace('\\"', '""') if escaped else text).split("\n")[:-1]


def _check_fields(name: str, begin: int, fields: list[str], numbers: Numbers) -> None:
    for i, field in enumerate(fields):
        if not (field.isdecimal() and len(field) <= _MAX_DIGITS if numbers.integers else _is_number(field)):
            raise deviation(name, begin + i, field.encode("latin-1"), "no number where other lines have one")
    if numbers.integers and (problem := numbers.check(np.array(list(map(int, fields)), np.int64))):
        raise deviation(name, begin + problem[0], fields[problem[0]].encode("latin-1"), problem[1])


def _is_number(field: str) -> bool:
    return NUMBER.fullmatch(field.encode("latin-1")) is not None


def line_bounds(buf: NDArray[np.uint8]) -> tuple[_Ints, _Ints]:
    r"""Return where each line begins and ends, without its ``\n`` or ``\r\n``."""
    newlines = np.flatnonzero(buf == ord("\n"))
    begins = np.concatenate([np.zeros(1, np.int64), newlines[:-1] + 1])
    ends = newlines - ((newlines > begins) & (buf[newlines - 1] == ord("\r")))
    return begins, ends


def strip_spaces(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints) -> _Ints:
    """Return the ends of slices without trailing spaces and tabs; a slice of only these is kept whole."""
    stripped = ends.copy()
    pending = np.flatnonzero(ends > begins)
    while len(pending):
        last = buf[stripped[pending] - 1]
        pending = pending[(last == ord(" ")) | (last == ord("\t"))]
        stripped[pending] -= 1
        pending = pending[stripped[pending] > begins[pending]]
    return np.where(stripped > begins, stripped, ends)


def cut(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints) -> PackedTokens:
    """Return disjoint slices of a buffer, in order, as tokens."""
    if len(begins) and begins[0] == 0 and np.array_equal(np.append(begins[1:], len(buf)), ends + 1):
        inside = np.ones(len(buf), np.bool_)
        inside[ends] = False
    else:
        change = np.zeros(len(buf) + 1, np.int8)
        change[begins] = 1
        change[ends] -= 1
        inside = np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)
    return PackedTokens(buf[inside], offsets_of(ends - begins))


def _skip_spaces(buf: NDArray[np.uint8], begins: _Ints, ends: _Ints) -> _Ints:
    skipped = begins.copy()
    pending = np.flatnonzero(ends > begins)
    while len(pending):
        pending = pending[buf[skipped[pending]] == ord(" ")]
        skipped[pending] += 1
        pending = pending[skipped[pending] < ends[pending]]
    return skipped


def _wrong_line(
    name: str, data: bytes, position: int, line: int, begins: _Ints, ends: _Ints, what: str
) -> BadLineError:
    return deviation(name, line + position, data[begins[position] : ends[position]], what)


def deviation(name: str, number: int, line: bytes, what: str) -> BadLineError:
    """Return the error of a line that differs from those before."""
    return BadLineError(
        f"{name}, line {number}: {shown(line)} has {what}. Please give one word a line, or the same columns "
        "in each line."
    )


def shown(line: bytes) -> str:
    """Return the start of a line, for messages."""
    text = line[:60].decode(errors="replace")
    return repr(text + "…" if len(line) > 60 else text)
