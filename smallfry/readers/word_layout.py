"""What the lines of a word list hold besides the word: counts, scores, row numbers, other columns, quotes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence

from smallfry.errors import InputError
from smallfry.kernels.numpy.text import NUMBER
from smallfry.readers.word_columns import Columns, Cut, Numbers, deviation, shown

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
    try:
        table = [[field.encode("latin-1") for field in row] or [b""] for row in rows]
    except csv.Error:  # a carriage return without quotes
        return None
    same = len(table) == len(lines) and len({len(row) for row in table[1:]}) < 2
    return table if same else None


def _tab_columns(name: str, lines: list[bytes], one_more: bool | None) -> Columns | None:
    if sum(b"\t" in line.strip(b" \t") for line in lines) <= TAB_SHARE * len(lines):
        return None
    counts = [line.count(b"\t") for line in lines]
    tabs = Counter(filter(None, counts[1:] if any(counts[1:]) else counts)).most_common(1)[0][0]
    if tabs <= 1 and all(NUMBER.fullmatch(line.rpartition(b"\t")[2]) for line in lines):
        return _choose(name, lines[0], [_halves(line, b"\t") for line in lines], "last", b"\t", one_more)
    if 2 * counts.count(0) > len(counts):
        number = next(i for i, line in enumerate(lines, 1) if b"\t" in line.strip(b" \t"))
        raise deviation(name, number, lines[number - 1], "columns separated by tabs, most lines have none")
    table = [line.split(b"\t") for line in lines]
    for number, row in enumerate(table[1:] or table, 1 + (len(table) > 1)):
        if len(row) != tabs + 1:
            raise deviation(name, number, lines[number - 1], f"{len(row)} columns, other lines {tabs + 1}")
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
            cut: Cut = "fields" if any(b'"' in line for line in lines) else "csv"
            return _choose(name, lines[0], table, cut, delimiter, one_more)
        return None
    if all(rest):
        halves = [_halves(line, delimiter) for line in lines]
        return _choose(name, lines[0], halves, "last", delimiter, one_more)
    if sum(rest) > _most_by_chance(lines) * len(rest):
        number = rest.index(False) + 1 + (rest is not fitting)
        raise deviation(name, number, lines[number - 1], "no number after the word, as other lines have")
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
            raise deviation(name, number, lines[number - 1], what)
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
        f"{name} has {what}, such as {shown(lines[-1])}. Please give one word a line, separate columns by a "
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
    cut: Cut,
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


def _halves(line: bytes, delimiter: bytes) -> list[bytes]:
    word, _, number = line.rpartition(delimiter)
    return [word, number]
