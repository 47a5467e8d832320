"""Word lists whose lines hold more than a word: counts, scores, row numbers, other columns, quotes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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

HEADINGS = frozenset(b"word words token tokens piece pieces term terms label labels name text x v1".split())
"""Names of the column of words, in lower case."""

TAB_SHARE = 0.01
"""Most lines of a plain list that may contain tabs."""

_FEW_LINES = 10
_LAST = re.compile(rb"(.*\S) +(" + NUMBER.pattern + rb")")
_FIRST = re.compile(rb"(?=\s*\d+ (.+)) *(\d+) .+")
_DECORATIONS = (
    (
        re.compile(rb"(.*\S) *(?:[:|=]|\((?!(?:1[89]|20)\d\d\))) *[-+]?\d[\d.,]*[%)| ]*"),
        "a number after the word",
    ),
    (re.compile(rb"(.*\S) +(?:\d{1,3}(?:,\d{3})+|[\d.]+%)"), "a number after the word"),
    (re.compile(rb" *\d+[.):|]\s*([^\d\s].*)"), "a number before the word"),
    (re.compile(rb"b?'(.*)',?"), "single quotes around the word"),
    (re.compile(rb"[-*|] (.+)"), "a list mark before the word"),
    (re.compile(rb"(.+),"), "a comma after the word"),
)
_BATCH_LINES = 1 << 16
_MAX_DIGITS = 18
_ORDINALS = ("first", "second", "third")

_Ints = NDArray[np.int64]
_Cut = Literal["fields", "first", "last", "csv"]


class Columns(NamedTuple):
    """Where the word of each line is."""

    cut: _Cut
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
            phrase += f", without the header {_shown(self.heading)}"
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


def find_columns(name: str, lines: list[bytes], one_more: bool | None) -> Columns | None:
    """Return the columns of a word list; None if each line is a word.

    Parameters
    ----------
    lines : list of bytes
        The first lines, without line ends.
    one_more : bool, optional
        Whether the list has one line more than the matrix has rows; None if that is unknown.

    Raises
    ------
    InputError
        It cannot be told which part of a line is the word.
    """
    found = _quoted_columns(name, lines, one_more) or _tab_columns(name, lines, one_more)
    if found is not None:
        return found
    for pattern, what in _DECORATIONS:
        if _fit(list(map(pattern.fullmatch, lines))) > 0.5:
            raise _unclear(name, lines, f"{what} in most lines")
    for delimiter in (b",", b";"):
        found = found or _comma_columns(name, lines, delimiter, one_more)
    return found or _spaced_columns(name, lines, one_more)


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


def _quoted_columns(name: str, lines: list[bytes], one_more: bool | None) -> Columns | None:
    """Return the columns of a list with fields in quotes, as pandas, csv and R write them."""
    if not any(b'"' in line for line in lines):
        return None
    all_quoted = all(line[:1] == b'"' for line in lines)
    best: tuple[int, bytes, bool, list[list[bytes]]] | None = None
    for escaped in (False, True) if all_quoted else (False,):
        texts = [line.replace(b'\\"', b'""') for line in lines] if escaped else lines
        for delimiter in (b",", b"\t", b";", b" "):
            if not all_quoted and delimiter == b" ":
                continue
            table = _parse_csv(texts, delimiter, all_quoted)
            if table is not None and (best is None or len(table[-1]) > best[0]):
                best = len(table[-1]), delimiter, escaped, table
        if best is not None:
            break
    if best is None:
        return None
    _, delimiter, escaped, table = best
    if any(re.search(rb"\\u[0-9A-Fa-f]{4}", line) for line in lines):
        raise InputError(f"{name} has JSON strings in its lines. Please give the words as one JSON array.")
    return _choose(name, lines[0], table, "csv", delimiter, one_more)._replace(escaped=escaped)


def _parse_csv(lines: list[bytes], delimiter: bytes, all_quoted: bool) -> list[list[bytes]] | None:
    """Return the fields of each line; None if quotes are used in another way than CSV does."""
    mark = re.escape(delimiter)
    quoted, bare = rb'"((?:[^"]|"")*)"', rb'[^"%s]*' % mark
    line_of_fields = re.compile(rb"(?:%s|%s)(?:%s(?:%s|%s))*" % (quoted, bare, mark, quoted, bare))
    field = re.compile(quoted)
    for line in lines:
        if b'"' in line and not line_of_fields.fullmatch(line):
            return None
        # Without need, quotes belong to the word.
        if not all_quoted and any(b'"' not in f and delimiter not in f for f in field.findall(line)):
            return None
    rows = csv.reader((line.decode("latin-1") for line in lines), delimiter=delimiter.decode())
    table = [[field.encode("latin-1") for field in row] or [b""] for row in rows]
    same = len(table) == len(lines) and len({len(row) for row in table[1:]}) < 2
    return table if same else None


def _tab_columns(name: str, lines: list[bytes], one_more: bool | None) -> Columns | None:
    if sum(b"\t" in line.strip(b" \t") for line in lines) <= TAB_SHARE * len(lines):
        return None
    counts = [line.count(b"\t") for line in lines]
    tabs = Counter(filter(None, counts[1:] or counts)).most_common(1)[0][0]
    if tabs <= 1 and all(NUMBER.fullmatch(line.rpartition(b"\t")[2]) for line in lines):
        return _choose(name, lines[0], [_halves(line, b"\t") for line in lines], "last", b"\t", one_more)
    table = [line.split(b"\t") for line in lines]
    for number, row in enumerate(table[1:] or table, 1 + (len(table) > 1)):
        if len(row) != tabs + 1:
            raise _deviation(name, number, lines[number - 1], f"{len(row)} columns, other lines {tabs + 1}")
    return _choose(name, lines[0], table, "fields", b"\t", one_more)


def _comma_columns(name: str, lines: list[bytes], delimiter: bytes, one_more: bool | None) -> Columns | None:
    """Return the columns of a CSV file without quotes; a word can hold commas too."""
    fitting = [NUMBER.fullmatch(line.rpartition(delimiter)[2]) is not None for line in lines]
    fitting = [fits and delimiter in line for fits, line in zip(fitting, lines, strict=True)]
    rest = fitting[1:] or fitting
    table = [line.split(delimiter) for line in lines]
    if len({len(row) for row in table[1:] or table}) == 1 and len(table[-1]) > 1:
        columns = zip(*table[1:] or table, strict=True)
        numeric = any(all(map(NUMBER.fullmatch, column)) for column in columns)
        if numeric or not any(delimiter + b" " in line for line in lines):
            cut: _Cut = "fields" if any(b'"' in line for line in lines) else "csv"
            return _choose(name, lines[0], table, cut, delimiter, one_more)
        return None
    if all(rest):
        halves = [_halves(line, delimiter) for line in lines]
        return _choose(name, lines[0], halves, "last", delimiter, one_more)
    if sum(rest) > _most_by_chance(lines) * len(rest):
        number = rest.index(False) + 1 + (rest is not fitting)
        raise _deviation(name, number, lines[number - 1], "no number after the word, as other lines have")
    return None


def _spaced_columns(name: str, lines: list[bytes], one_more: bool | None) -> Columns | None:
    """Return the columns of lines 'word number' or 'number word', separated by spaces."""
    lines = [line.rstrip(b" ") for line in lines]
    last, first = list(map(_LAST.fullmatch, lines)), list(map(_FIRST.fullmatch, lines))
    if _fit(last) == 1:
        table = [[m[1], m[2]] if m else line.rsplit(b" ", 1) for m, line in zip(last, lines, strict=True)]
        columns = _choose(name, lines[0], table, "last", b" ", one_more)
        _check_counts(name, lines, [row[0] for row in table[1:] or table], columns.numbers[1])
        return columns
    if _fit(first) == 1:
        table = [[m[2], m[1]] if m else line.split(b" ", 1) for m, line in zip(first, lines, strict=True)]
        if _fit([_FIRST.fullmatch(row[-1]) for row in table]) == 1:
            raise _unclear(name, lines, "two numbers before the word")
        widths = {m.end(2) for m in first if m and m.start(2)}
        return _choose(name, lines[0], table, "first", b" ", one_more, aligned=len(widths) == 1)
    for matches, most, where in ((last, _most_by_chance(lines), "after"), (first, 0.5, "before")):
        if _fit(matches) > most:
            number = matches.index(None, len(matches) > 1) + 1
            what = f"no number {where} the word, as other lines have"
            raise _deviation(name, number, lines[number - 1], what)
    _check_tags(name, lines)
    return None


def _most_by_chance(lines: list[bytes]) -> float:
    """Return the largest share of lines that may look like 'word number' by chance, as in 'area 51'."""
    return max(0.1, 3 / len(lines))


def _fit(matches: Sequence[re.Match[bytes] | None]) -> float:
    """Return the share of lines with a number next to the word; the first line may be a header.

    It is 0 if most words repeat one before, as in 'user 1', 'user 2': then the number is a part of the word.
    """
    words = [match[1] for match in matches if match is not None]
    if len(set(words)) < len(words) / 2:
        return 0.0
    rest = matches[1:] or matches
    return 1 - rest.count(None) / len(rest)


def _check_tags(name: str, lines: list[bytes]) -> None:
    """Raise InputError if lines end with one of few words, as with a part of speech."""
    pairs = [line.rsplit(b" ", 1) for line in lines if b" " in line.strip()]
    words, tags = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    if len(words) > 0.9 * len(lines) and len(words) > 20 * len(tags):
        raise _unclear(name, lines, f"one of {len(tags)} words at the end of most lines")


def _unclear(name: str, lines: list[bytes], what: str) -> InputError:
    return InputError(
        f"{name} has {what}, such as {_shown(lines[-1])}. Please give one word a line, separate columns by a "
        "tab, or give the words as a JSON array."
    )


def _check_counts(name: str, lines: list[bytes], words: list[bytes], numbers: Numbers) -> None:
    """Raise InputError if numbers after words may be a part of them, as in 'area 51'."""
    several = Counter(word.count(b" ") for word in words).most_common(1)[0][0] > 0
    repeated = len(words) - len(set(words)) > 0.01 * len(words)
    few = len(lines) < 2 or (len(lines) < _FEW_LINES and not numbers.falling)
    if numbers.start is None and (several or repeated or few):
        raise _unclear(name, lines, "a number at the end of each line, a count or a part of the word")


def _choose(
    name: str,
    first_line: bytes,
    table: list[list[bytes]],
    cut: _Cut,
    delimiter: bytes,
    one_more: bool | None,
    *,
    aligned: bool = False,
) -> Columns:
    """Return the columns; the word's is the one that the header names, or else the first without numbers.

    `aligned` tells that numbers before the word are right-aligned, as counts by ``uniq -c``.
    """
    first, rest = table[0], table[1:] or table
    count = len(rest[0])
    numeric = [all(NUMBER.fullmatch(row[i]) for row in rest) for i in range(count)]
    named = [i for i, field in enumerate(first) if field.strip().lower() in HEADINGS]
    header = len(table) > 1 and (
        len(first) != count
        or (count > 1 and any(a and not NUMBER.fullmatch(b) for a, b in zip(numeric, first, strict=True)))
        or (bool(named) if one_more is None else one_more and (count > 1 or bool(named)))
        or (count > 1 and len(named) == 1 and not any(numeric))
    )
    if header and len(first) == count and len(named) == 1:
        word = named[0]
    elif not numeric[0] or count == 1:
        word = 0
    elif not numeric[1]:
        word = 1
    else:
        raise InputError(f"{name} has numbers in its first columns, expected words. Please give a word list.")
    body = rest if header else table
    numbers = {
        i: Numbers([row[i] for row in body], ordered=i < word and not aligned)
        for i in range(count)
        if i != word and numeric[i]
    }
    return Columns(cut, delimiter, count, word, numbers, first_line if header else None)


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
    if columns.heading is not None:
        next(rows)
    try:
        while batch := list(islice(rows, _BATCH_LINES)):
            begin = rows.line_num - len(batch) + 1
            for i, row in enumerate(batch):
                if len(row) != columns.width:
                    if not row and columns.width == 1:
                        row.append("")
                        continue
                    shown = columns.delimiter.decode().join(row).encode("latin-1")
                    raise _deviation(
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
            raise _deviation(name, begin + i, field.encode("latin-1"), "no number where other lines have one")
    if numbers.integers and (problem := numbers.check(np.array(list(map(int, fields)), np.int64))):
        raise _deviation(name, begin + problem[0], fields[problem[0]].encode("latin-1"), problem[1])


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


def _halves(line: bytes, delimiter: bytes) -> list[bytes]:
    word, _, number = line.rpartition(delimiter)
    return [word, number]


def _wrong_line(
    name: str, data: bytes, position: int, line: int, begins: _Ints, ends: _Ints, what: str
) -> BadLineError:
    return _deviation(name, line + position, data[begins[position] : ends[position]], what)


def _deviation(name: str, number: int, line: bytes, what: str) -> BadLineError:
    return BadLineError(
        f"{name}, line {number}: {_shown(line)} has {what}. Please give one word a line, or the same columns "
        "in each line."
    )


def _shown(line: bytes) -> str:
    text = line[:60].decode(errors="replace")
    return repr(text + "…" if len(line) > 60 else text)
