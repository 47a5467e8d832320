"""Layout of a text file, from its first lines: header, delimiter, number of values, tokens and quotes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from smallfry.errors import BadLineError, InputError
from smallfry.kernels.numpy.text import NUMBER, field_value, is_quoted, split_fields
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import MAX_LINE, check_dim

_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 200
_WIDE_LINES = 20
_SAMPLE_BYTES = 1 << 16
"""Of lines with many values, fewer are looked at, but not fewer than `_WIDE_LINES`."""

_HEADER = re.compile(rb"[ \t]*([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]*\r?")
_SPACES, _TAB, _COMMA, _SEMICOLON = b"\0\t,;"
_SEPARATORS = {b",", b";", b":", b"|", b"="}
_DECIMAL_COMMA = re.compile(rb"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")


class Header(NamedTuple):
    """First line of a word2vec file."""

    rows: int
    dim: int
    size: int
    """Bytes of the line, including its newline and a byte-order mark."""


class TextLayout(NamedTuple):
    """Layout of a text file."""

    dim: int
    rows: int | None
    """Rows that the header declares; None without a header."""
    before: int
    """Bytes before the first row: byte-order mark, and header or column names."""
    delimiter: int = _SPACES
    """Byte that separates fields; 0 for runs of spaces and tabs."""
    has_tokens: bool = True
    quoted: bool = False
    """Whether quotes around tokens and values are removed."""
    column_names: bool = False

    @property
    def format(self) -> str:
        """Name of the format, one of `smallfry.readers.FORMATS`."""
        if not self.has_tokens:
            return "text-matrix"
        return "glove" if self.rows is None else "word2vec"


def find_header(stream: InputStream) -> Header | None:
    """Return the first line if it is two integers, as in word2vec and fastText files."""
    mark = mark_size(stream)
    line = stream.peek(1 << 10)[mark:].split(b"\n", 1)[0]
    match = _HEADER.fullmatch(line)
    if match is None:
        return None
    return Header(int(match[1]), int(match[2]), mark + len(line) + 1)


def mark_size(stream: InputStream) -> int:
    """Return the bytes of the byte-order mark that the stream begins with; 0 without one."""
    size = len(BYTE_ORDER_MARK)
    return size if stream.peek(size) == BYTE_ORDER_MARK else 0


def find_layout(stream: InputStream, options: ReadOptions) -> TextLayout:
    """Return the layout of a text file. `options.format` overrides what can be detected.

    - A first line of two integers is a header, unless the next lines have one value each and it declares
      another dim: then it is the first vector of a 1-dimensional GloVe file.
    - A first line of as many names as the next lines have values, or as consecutive integers above values
      that are not integers, is a line of column names.
    - The delimiter is the one that gives most lines the most values at their end.
    - Lines of only numbers, of which the first is a fraction in half of the lines, have no tokens.

    Raises
    ------
    InputError
        The lines hold no vectors, or they would be misread: the header declares another dim, columns precede
        the token, delimiters are mixed, decimals have commas, or all fields are integers.
    """
    header, lines = find_header(stream), _first_lines(stream)
    if options.format == "word2vec" and header is None:
        raise InputError(
            f"{stream.name} does not begin with a line 'rows dim', as word2vec and fastText text does. "
            "Please read it as format 'glove'."
        )
    if header is not None and options.format in (None, "text-matrix"):
        values = _most_common(_trailing_numbers(line) for line in lines[1:])
        header = None if values == 1 and header.dim != 1 else header
    elif options.format == "glove":
        header = None
    if len(lines) == 1 and b"\r" in lines[0].removesuffix(b"\r"):
        raise InputError(
            f"{stream.name} ends lines with CR only. Please convert them: tr '\\r' '\\n' < FILE."
        )
    before = mark_size(stream) if header is None else header.size
    sample = _Sample.of([line for line in (lines if header is None else lines[1:]) if line.strip()])
    is_first = sample.lines[:1] == [lines[0].removesuffix(b"\r")]
    column_names = header is None and is_first and sample.begins_with_names()
    if column_names:
        before += len(lines[0]) + 1
        sample = sample.rest()
    has_tokens = _has_tokens(stream.name, sample, header, options)
    dim = header.dim if header is not None else sample.values if has_tokens else sample.columns()
    if header is None and not sample.values:
        raise InputError(
            f"{stream.name} holds no vectors: its first line is {_shown(lines)}, expected "
            "'token value value …', a line 'rows dim', or a binary format such as .npy or .safetensors."
        )
    check_dim(stream.name, dim)
    if has_tokens:
        _check_tokens(stream.name, sample, dim, header)
    quoted = column_names or sample.has_quotes()
    rows = None if header is None else header.rows
    return TextLayout(dim, rows, before, sample.delimiter, has_tokens, quoted, column_names)


def is_text_row(line: bytes, dim: int) -> bool:
    """Return whether a line ends with `dim` numbers."""
    return _trailing_numbers(line) >= dim


class _Sample(NamedTuple):
    """The first lines of a file, split into fields."""

    lines: list[bytes]
    delimiter: int
    fields: list[list[bytes]]
    numbers: list[int]
    """Numbers that each line ends with."""

    @classmethod
    def split(cls, lines: list[bytes], delimiter: int) -> _Sample:
        """Split lines at a delimiter; those without fields are left out."""
        lines = [line for line in lines if line.strip(b" \t" + bytes([delimiter]))]
        fields = [split_fields(line, delimiter) for line in lines]
        numbers = [_trailing_numbers(line, delimiter) for line in lines]
        return cls(lines, delimiter, fields, numbers)

    @classmethod
    def of(cls, lines: list[bytes]) -> _Sample:
        """Split lines at the delimiter that gives most lines the most numbers."""
        lines = [line.removesuffix(b"\r") for line in lines]
        others = [mark for mark in (_COMMA, _SEMICOLON) if any(mark in line for line in lines)]
        samples = [cls.split(lines, delimiter) for delimiter in (_SPACES, *others)]
        best = max(samples, key=lambda sample: sample.values)
        tabs = {line.count(b"\t") for line in lines[1:] or lines}
        if best.delimiter == _SPACES and tabs == {best.values} != {0}:
            return cls.split(lines, _TAB)
        return best

    @property
    def values(self) -> int:
        """Numbers that most lines end with."""
        return _most_common(self.numbers)

    def rest(self) -> _Sample:
        """Return the sample without its first line."""
        return _Sample(self.lines[1:], self.delimiter, self.fields[1:], self.numbers[1:])

    def begins_with_names(self) -> bool:
        """Return whether the first line names the columns of the others, or is a comment."""
        if len(self.lines) < 2:
            return False
        rest = self.rest()
        first, values = self.fields[0], rest.values
        if values == 0:
            return False
        numbers = [_is_number(field) for field in first]
        if self.lines[0].startswith(b"#") and not all(numbers[-values:]):
            return True
        if len(first) - values not in (0, 1):
            return False
        columns = [field_value(field, True) for field in (first if numbers[0] else first[-values:])]
        counted = [[b"%d" % (i + base) for i in range(len(columns))] for base in (0, 1)]
        if columns in counted and values > 1:
            return not rest.is_integer()
        return not any(numbers[-values:])

    def is_numeric(self) -> bool:
        """Return whether at least nine of ten lines have only numbers."""
        numeric = sum(all(map(_is_number, fields)) for fields in self.fields)
        return 10 * numeric >= 9 * len(self.fields) > 0

    def columns(self) -> int:
        """Return the number of fields that most lines have."""
        return _most_common(map(len, self.fields))

    def is_integer(self) -> bool:
        """Return whether every value is an integer, or every field if all are numbers."""
        return not any(
            _is_fraction(field) for fields in self.fields for field in fields[-max(self.values, 1) :]
        )

    def begins_with_counts(self) -> bool:
        """Return whether the first value of most lines is an integer above 1, and other values are not."""
        if self.values < 2 or self.is_integer():
            return False
        first = [field_value(fields[-self.values :][0], True) for fields in self.fields]
        counts = [int(value) for value in first if value.isdigit()]
        return len(counts) == len(first) and 2 * sum(count > 1 for count in counts) > len(counts)

    def has_quotes(self) -> bool:
        """Return whether fields are quoted: as in CSV, or the first of each line, or values."""
        if self.delimiter in (_COMMA, _SEMICOLON):
            return True
        return all(line.startswith(b'"') for line in self.lines) and any(
            is_quoted(token) for token in self.tokens(self.values)
        )

    def tokens(self, dim: int) -> list[bytes]:
        """Return the text before the last `dim` fields of each line."""
        if self.delimiter == _SPACES:
            return [line.strip().rsplit(None, dim)[0] for line in self.lines]
        return [bytes([self.delimiter]).join(fields[:-dim]) for fields in self.fields]


def _has_tokens(name: str, sample: _Sample, header: Header | None, options: ReadOptions) -> bool:
    if options.format is not None:
        return options.format != "text-matrix"
    if not sample.is_numeric():
        return True
    if header is not None:
        return header.dim != sample.columns()
    if options.words:
        return False
    fractions = sum(_is_fraction(fields[0]) for fields in sample.fields)
    if 2 * fractions >= len(sample.fields):
        return False
    if sample.values > 0 and not fractions and sample.is_integer():
        raise InputError(
            f"{name} holds only integers, so the first field of a line may be a token or a value. "
            "Please pass format='glove' (--format glove) if it is a token, 'text-matrix' if it is a value."
        )
    return True


def _check_tokens(name: str, sample: _Sample, dim: int, header: Header | None) -> None:
    """Raise InputError if most tokens contain what belongs to other columns."""
    tokens = sample.tokens(dim)
    if header is not None and sample.values > dim:
        problem = f"has lines of {sample.values} values, but its header declares {dim}"
        remedy = "Please correct the header."
    elif header is None and sample.begins_with_counts():
        problem, remedy = "has a column of counts after the token", "Please remove it."
    elif _most(tokens, lambda parts: _DECIMAL_COMMA.fullmatch(b",".join(parts[-2:])) is not None):
        problem, remedy = "has decimal commas", "Please write decimal points."
    elif _most(tokens, _ends_with_value) or (header is None and _is_glued(tokens)):
        problem = "mixes delimiters"
        remedy = "Please separate all fields by spaces, tabs, commas or semicolons."
    elif _is_counted(tokens):
        problem, remedy = "has a column of row numbers", "Please remove it, for example with cut -f2-."
    elif 2 * sum(_has_delimiter(token, sample.delimiter or _TAB) for token in tokens) > len(tokens):
        problem, remedy = "has several columns before the values", "Please keep only that of the tokens."
    else:
        return
    raise InputError(f"{name} {problem}: its first line is {_shown(sample.lines)}. {remedy}")


def _most(tokens: list[bytes], condition: Callable[[list[bytes]], bool]) -> bool:
    """Return whether more than half of the tokens have several parts that meet a condition."""
    columns = [re.split(rb"[ \t,;]", token) for token in tokens]
    return 2 * sum(len(parts) > 1 and condition(parts) for parts in columns) > len(tokens)


def _ends_with_value(parts: list[bytes]) -> bool:
    return _is_number(parts[-1]) and (_is_fraction(parts[-1]) or not _is_number(parts[-2]))


def _is_glued(tokens: list[bytes]) -> bool:
    """Return whether all tokens end with the same separator, or most with one and a fraction."""
    ends = {token[-1:] for token in tokens if len(token) > 1}
    fractions = sum(
        _is_fraction(re.split(rb"[:|=]", token)[-1]) and not _is_number(token) for token in tokens
    )
    return (len(tokens) > 2 and len(ends) == 1 and ends <= _SEPARATORS) or 2 * fractions > len(tokens)


def _is_counted(tokens: list[bytes]) -> bool:
    first = [re.split(rb"[ \t,;]", token) for token in tokens]
    numbers = [int(parts[0]) for parts in first if len(parts) > 1 and parts[0].isdigit()]
    return 2 * len(numbers) > len(tokens) and all(b - a == 1 for a, b in pairwise(numbers))


def _has_delimiter(token: bytes, delimiter: int) -> bool:
    return len(token) > 1 and delimiter in token and not is_quoted(token)


def _first_lines(stream: InputStream) -> list[bytes]:
    size = _HEAD_BYTES
    while len(head := stream.peek(size)) == size and b"\n" not in head:
        if size > MAX_LINE:
            raise BadLineError(
                f"{stream.name}, line 1: longer than {MAX_LINE:,} bytes, expected a text file of vectors."
            )
        size *= 2
    lines = head.removeprefix(BYTE_ORDER_MARK).split(b"\n", _SAMPLE_LINES)
    if len(lines) > 1 and (len(lines) > _SAMPLE_LINES or len(head) == size):
        lines.pop()  # may be incomplete
    return lines[: max(_WIDE_LINES, _SAMPLE_BYTES // max(1, len(lines[-1])))]


def _trailing_numbers(line: bytes, delimiter: int = _SPACES) -> int:
    """Return how many fields at the end of a line are numbers; the first of the line is not counted.

    It is if spaces precede it, because the token may be blank.
    """
    fields = split_fields(line.removesuffix(b"\r"), delimiter)[::-1]
    if delimiter != _SPACES or line[:1] not in (b" ", b"\t"):
        fields = fields[:-1]
    return next((i for i, field in enumerate(fields) if not _is_number(field)), len(fields))


def _most_common(counts: Iterable[int]) -> int:
    return max(Counter(counts).most_common(1), default=(0, 0))[0]


def _is_number(field: bytes) -> bool:
    return (NUMBER.fullmatch(field) or NUMBER.fullmatch(field_value(field, True))) is not None


def _is_fraction(field: bytes) -> bool:
    return _is_number(field) and not field_value(field, True).lstrip(b"+-").isdigit()


def _shown(lines: list[bytes]) -> str:
    return repr(next((line for line in lines if line.strip()), b"")[:60].decode(errors="replace"))
