"""Word lists with several columns, or with quotes around the words."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from operator import ne
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import BadLineError
from smallfry.kernels.numpy import text
from smallfry.readers.records import pack
from smallfry.readers.report import ReadReport
from smallfry.vocabulary import PackedTokens

NUMBER = re.compile(text.NUMBER.pattern.decode(), re.ASCII)

_ORDINALS = ("first", "second", "third")


class Columns(NamedTuple):
    """Where the word of each line is."""

    delimiter: str
    pattern: re.Pattern[str] | None = None
    """Groups "word" and "number", if the word may contain the delimiter."""
    quoted: bool = False
    """Whether fields may be quoted, as in CSV."""
    escaped: bool = False
    r"""Whether a quote within quotes is ``\"``."""
    aligned: bool = False
    """Whether numbers before the word are right-aligned, as the counts of ``uniq -c``."""
    width: int = 2
    """Number of fields."""
    word: int = 0
    """Position of the word's field."""
    numbers: tuple[int, ...] = ()
    """Positions of the fields that are numbers."""
    heading: str | None = None
    """The first line, if it names the columns."""

    def split(self, lines: list[str]) -> list[list[str]]:
        """Return the fields of each line, up to the first line whose quotes are wrong."""
        if self.pattern is not None:
            return [list(m.groups()) if (m := self.pattern.fullmatch(line)) else [line] for line in lines]
        if not self.quoted:
            return [line.split(self.delimiter) for line in lines]
        if self.escaped:
            lines = [line.replace('\\"', '""') for line in lines]
        rows = csv.reader(lines, delimiter=self.delimiter, strict=True)
        table: list[list[str]] = []
        with suppress(csv.Error):
            for row in rows:
                if rows.line_num > len(table) + 1:  # a field with line breaks
                    break
                table.append(row or [""])
        return table

    def fit(self, table: list[list[str]]) -> bool:
        """Return whether all lines have the columns."""
        numbers = self.numbers if self.pattern is None else ()
        return set(map(len, table)) <= {self.width} and all(
            all(map(NUMBER.fullmatch, [row[i] for row in table])) for i in numbers
        )

    def describe(self) -> str:
        """Return a phrase for the report."""
        which = _ORDINALS[self.word] if self.word < len(_ORDINALS) else f"number {self.word + 1}"
        phrase = "in quotes" if self.width == 1 else f"{which} of {self.width} columns"
        return phrase if self.heading is None else f"{phrase}, without the header {shown(self.heading)}"


def column_words(
    name: str, blocks: Iterator[bytes], columns: Columns, report: ReadReport
) -> Iterator[PackedTokens]:
    """Yield the words of blocks of whole lines.

    Raises
    ------
    BadLineError
        A line has other columns than the first ones, or numbers show that the lines are in another order
        than the rows of the matrix.
    """
    skipped = int(columns.heading is not None)
    first = line = 1 + skipped
    numbers: dict[int, list[NDArray[np.float64]]] = {i: [np.empty(0)] for i in columns.numbers}
    for block in blocks:
        lines = block.decode(errors="surrogateescape").split("\n")[skipped:-1]
        skipped = 0
        table = columns.split(lines)
        if len(table) < len(lines) or not columns.fit(table):
            wrong = next((i for i, row in enumerate(table) if not columns.fit([row])), len(table))
            raise _deviation(f"{name}, line {line + wrong}", lines[wrong], columns)
        for i in columns.numbers:
            numbers[i].append(np.array([float(row[i]) for row in table]))
        words = [row[columns.word] for row in table]
        if not columns.quoted:
            stripped = [word.rstrip(" \t") or word for word in words]
            report.stripped_words += sum(map(ne, words, stripped))
            words = stripped
        yield pack([word.encode(errors="surrogateescape") for word in words])
        line += len(lines)
    for i in columns.numbers:
        ordered = i < columns.word and not columns.aligned
        _check_order(name, first, np.concatenate(numbers[i]), ordered=ordered)


def is_ordered(numbers: NDArray[np.float64]) -> bool:
    """Return whether numbers are row numbers from 0 or 1 on, or fall as sorted counts do."""
    counted = np.arange(len(numbers)) + numbers[:1]
    falling = np.all(np.diff(numbers) <= 0)
    return bool(falling) or (numbers[0] in (0, 1) and np.array_equal(numbers, counted))


def _check_order(name: str, line: int, numbers: NDArray[np.float64], *, ordered: bool) -> None:
    """Raise BadLineError if numbers are those of other rows, or if they are not ordered but have to be."""
    if is_ordered(numbers):
        return
    least = numbers.min()
    from_start = least in (0, 1)
    if from_start and np.array_equal(np.sort(numbers), np.arange(len(numbers)) + least):
        raise BadLineError(f"{name} has row numbers in another order than its lines. Please sort it by them.")
    if ordered or (from_start and np.all(np.diff(numbers) > 0)):
        steps = np.diff(numbers)
        wrong = 1 + int(np.flatnonzero(steps != 1 if numbers[0] in (0, 1) else ~(steps <= 0))[0])
        raise BadLineError(
            f"{name}, line {line + wrong}: the number {numbers[wrong]:.15g} is neither that of the row nor "
            "one of sorted counts. Please give one word a line, in the order of the vectors."
        )


def _deviation(where: str, line: str, columns: Columns) -> BadLineError:
    numbers = ", and numbers in the same" if columns.numbers else ""
    return BadLineError(
        f"{where}: {shown(line)}, expected {columns.width} columns separated by {columns.delimiter!r}, as in "
        f"most lines{numbers}. Please give one word a line, or the same columns in each line."
    )


def shown(line: str) -> str:
    """Return the start of a line, for messages."""
    return repr(line[:60] + "…" if len(line) > 60 else line)
