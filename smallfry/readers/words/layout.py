"""Columns of a word list, from its first lines."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from smallfry.errors import InputError
from smallfry.readers.words.columns import NUMBER, Columns, is_ordered, shown

HEADINGS = frozenset("word words token tokens piece pieces term terms label labels name text x v1".split())
"""Names of the column of words, in lower case."""

_MANY = 0.25
"""A larger share of lines with a number next to the word is not by chance, as in 'area 51'."""

_DECORATED_AFTER = re.compile(
    r"(?P<word>.*\S)(?:,| *(?:[:|=]|, |\((?!(?:1[89]|20)\d\d\))) *[-+]?\d[\d.,]*[%)| ]*"
    r"| +\d{1,3}(?:,\d{3})+| +[\d.]+%)",
    re.ASCII,
)
_DECORATED_BEFORE = re.compile(
    r""" *(?:\d+[.):|]\s*|\d+ +\d+ +|[-*|] |b?'(?=.*',?$)|"(?=.*"))(?P<word>[^\d\s].*)""", re.ASCII
)


def find_columns(name: str, lines: list[str], one_more: bool | None) -> Columns | None:
    """Return the columns of a word list; None if each line is a word.

    Parameters
    ----------
    lines : list of str
        The first lines, without line ends.
    one_more : bool, optional
        Whether the list has one line more than the matrix has rows; None if that is unknown.

    Raises
    ------
    InputError
        It cannot be told which part of a line is the word.
    """
    columns = _find_quoted(name, lines) or _find_delimited(lines, "\t")
    if columns is None:
        _check_decorations(name, lines)
        columns = _find_delimited(lines, ",") or _find_delimited(lines, ";") or _find_counts(lines, " ")
    if columns is None:
        return None
    columns = _with_word(name, columns, lines, one_more)
    if columns.pattern is not None and columns.delimiter == " " and columns.word == 0:
        _check_counts(name, lines, columns)
    return columns


def _find_quoted(name: str, lines: list[str]) -> Columns | None:
    r"""Return the columns of lines with quotes as in CSV; R writes a quote within quotes as ``\"``."""
    if not any('"' in line for line in lines):
        return None
    all_quoted = all('"' in line for line in lines[1:] or lines)
    for escaped in (False, True) if all_quoted else (False,):
        texts = [line.replace('\\"', '""') for line in lines] if escaped else lines
        found = [
            Columns(delimiter, quoted=True, escaped=escaped)
            for delimiter in (",", "\t", ";", " ")
            if _are_quoted(texts, delimiter, all_quoted)
        ]
        if found and any(re.search(r"\\u[0-9A-Fa-f]{4}", line) for line in lines):
            raise _unclear(name, lines, "JSON strings in its lines")
        if found:
            return max(found, key=lambda columns: _width(columns.split(lines)))
    return None


def _are_quoted(lines: list[str], delimiter: str, all_quoted: bool) -> bool:
    """Return whether lines are valid CSV. Quotes in some lines that are not necessary belong to the words."""
    quoted, bare = r'"((?:[^"]|"")*)"', rf'[^"\r{delimiter}]*'
    row = re.compile(f"(?:{quoted}|{bare})(?:{delimiter}(?:{quoted}|{bare}))*")
    if not all(map(row.fullmatch, lines)):
        return False
    fields = [field for line in lines for field in re.findall(quoted, line)]
    return all_quoted or (delimiter != " " and all('"' in field or delimiter in field for field in fields))


def _find_delimited(lines: list[str], delimiter: str) -> Columns | None:
    """Return the columns of lines with a delimiter; words next to a number may contain it too."""
    rest = lines[1:] or lines
    if 2 * sum(delimiter in line.strip(" \t") for line in rest) <= len(rest):
        return None
    is_csv = delimiter != "\t" and not any('"' in line or "\r" in line for line in lines)
    columns = Columns(delimiter, quoted=is_csv)
    table = columns.split(rest)
    prose = delimiter != "\t" and any(f"{delimiter} " in line for line in lines)
    if len(set(map(len, table))) == 1:
        numeric = any(all(map(NUMBER.fullmatch, column)) for column in zip(*table, strict=True))
        return columns if numeric or not prose else None
    counted = _find_counts(lines, delimiter)
    if counted is not None:
        return counted if _width(table) == 2 else columns
    return None if prose else columns


def _find_counts(lines: list[str], delimiter: str) -> Columns | None:
    """Return the columns of lines of a word and a number; the word may contain the delimiter."""
    number = f"(?P<number>{NUMBER.pattern})"
    for text in (f"(?P<word>.+){delimiter}{number} *", f" *{number}{delimiter}(?P<word>.+)"):
        pattern = re.compile(text, re.ASCII)
        if _is_common(pattern, lines):
            return Columns(delimiter, pattern, aligned=all(line.startswith(" ") for line in lines[1:]))
    return None


def _check_counts(name: str, lines: list[str], columns: Columns) -> None:
    """Raise InputError if numbers after words may be a part of them, as in 'area 51'."""
    rows = [row for row in columns.split(lines) if len(row) == columns.width]
    words, numbers = [row[0].strip() for row in rows], np.array([float(row[1]) for row in rows])
    repeated = len(set(words)) < 0.99 * len(words)
    few = len(words) < 2 or (len(words) < 10 and not is_ordered(numbers))
    if repeated or few or 2 * sum(" " in word for word in words) > len(words):
        raise _unclear(name, lines, "a number at the end of each line, a count or a part of the word")


def _with_word(name: str, columns: Columns, lines: list[str], one_more: bool | None) -> Columns:
    """Add the column of the words: the one that the header names, or else the first without numbers."""
    table = columns.split(lines)
    width = _width(table[1:] or table) if columns.pattern is None else 2
    first, rest = table[0], [row for row in table[1:] or table if len(row) == width]
    shares = [sum(map(bool, map(NUMBER.fullmatch, column))) / len(rest) for column in zip(*rest, strict=True)]
    # Words in quotes are words, also if they are digits.
    texts = [i for i, share in enumerate(shares) if share <= 0.5 or width == 1]
    if columns.pattern is not None:
        texts = [columns.pattern.groupindex["word"] - 1]
    if not texts or (width > 1 and shares[texts[0]] == 1):
        raise InputError(
            f"{name} has numbers in all of its columns, expected words. Please give a word list."
        )
    word = texts[0]
    numbers = [i for i, share in enumerate(shares) if i < word or (width > 1 and share == 1)]
    named = [i for i in texts if i < len(first) and first[i].strip().lower() in HEADINGS]
    differs = len(first) != width or not all(NUMBER.fullmatch(first[i]) for i in numbers)
    may_differ = (one_more is not False and named) or (one_more and width > 1)
    heading = lines[0] if len(table) > 1 and (differs or may_differ) else None
    if heading is not None and len(named) == 1 and len(first) == width:
        word = named[0]
    numbers = [i for i in numbers if i != word]
    return columns._replace(width=width, word=word, numbers=tuple(numbers), heading=heading)


def _check_decorations(name: str, lines: list[str]) -> None:
    for pattern, where in ((_DECORATED_AFTER, "after"), (_DECORATED_BEFORE, "before")):
        if _is_common(pattern, lines):
            raise _unclear(name, lines, f"a number or a mark {where} the word in many lines")
    ends = [line.rpartition(" ")[2] for line in lines if " " in line.strip()]
    if len(ends) > 0.9 * len(lines) and len(ends) > 20 * len(set(ends)):
        raise _unclear(name, lines, f"one of {len(set(ends))} words at the end of most lines")


def _is_common(pattern: re.Pattern[str], lines: list[str]) -> bool:
    """Return whether many lines match, with different words; the first line may be a header.

    Words repeat if a number is a part of them, as in 'user 1', 'user 2'.
    """
    matches = list(map(pattern.fullmatch, lines))
    rest = matches[1:] or matches
    found = len(rest) - rest.count(None)
    if found < len(rest) and found <= max(3, _MANY * len(rest)):
        return False
    words = [match["word"] for match in matches if match]
    return 2 * len(set(words)) >= len(words)


def _width(table: list[list[str]]) -> int:
    """Return the number of fields that most lines have."""
    return Counter(map(len, table)).most_common(1)[0][0]


def _unclear(name: str, lines: list[str], what: str) -> InputError:
    return InputError(
        f"{name} has {what}, such as {shown(lines[-1])}. Please give one word a line, separate columns by a "
        "tab, or give the words as a JSON array."
    )
