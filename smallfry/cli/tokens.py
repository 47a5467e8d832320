"""Tokens of a command: from its arguments, or from standard input, one a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BufferedReader

import numpy as np
from numpy.typing import NDArray

from smallfry import console
from smallfry.cli.arguments import Parser
from smallfry.errors import InputError
from smallfry.readers.input.stream import BYTE_ORDER_MARK
from smallfry.readers.records import MAX_LINE

_READ_BYTES = 1 << 16
_SHOWN = 5


def add_tokens(parser: Parser) -> None:
    """Add the arguments of a verb that takes tokens, which can begin with a dash."""
    parser.dash_words = True
    parser.add_argument("file", metavar="FILE", help="a .sfq file")
    parser.add_argument(
        "tokens",
        metavar="TOKEN",
        nargs="*",
        help="a token, or a row number with --ids; without any, the lines of standard input",
    )
    parser.add_argument("--ids", action="store_true", help="take row numbers instead of tokens")


def token_blocks(tokens: Sequence[str], size: int, noun: str = "token") -> Iterator[list[str]]:
    r"""Yield tokens, or without any the lines of standard input, `size` at most at a time.

    Only ``\n`` and ``\r\n`` end a line. Bytes that are not UTF-8 become surrogates, as in `sys.argv`.

    Raises
    ------
    InputError
        Standard input is closed, or a line is too long.
    """
    for block in [tokens] if tokens else _lines(console.binary_input(), noun):
        for start in range(0, len(block), size):
            yield list(block[start : start + size])


def row_numbers(texts: Sequence[str], rows: int) -> NDArray[np.int64]:
    """Return row numbers; raise InputError for one that is not below `rows`."""
    for text in texts:
        if not text.isdecimal() or len(text) > 18:
            raise InputError(f"{text!r} is not a row number. Omit --ids to give tokens.")
        if int(text) >= rows:
            raise InputError(f"row {text} is out of range: the table has rows 0 to {rows - 1}.")
    return np.array([int(text) for text in texts], np.int64)


class UnknownTokens:
    """The tokens that a vocabulary lacks: the first ones, and their number."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def add(self, tokens: Sequence[str], found: Sequence[bool]) -> None:
        """Count the tokens that are not found."""
        if all(found):
            return
        unknown = [token for token, known in zip(tokens, found, strict=True) if not known]
        self._count += len(unknown)
        self._first += unknown[: _SHOWN - len(self._first)]

    def exit_code(self) -> int:
        """Return 1 and name the tokens on standard error, or 0 if there are none."""
        if not self._count:
            return 0
        shown = ", ".join(map(repr, self._first))
        rest = f" and {self._count - _SHOWN:,} more" if self._count > _SHOWN else ""
        console.note(f"smallfry: not in the vocabulary: {shown}{rest}")
        return 1


def _lines(stream: BufferedReader, noun: str) -> Iterator[list[str]]:
    if stream.isatty():
        console.note(f"smallfry: reading {noun}s from standard input, one a line; end with Ctrl-D")
    rest = b""
    mark = BYTE_ORDER_MARK
    while data := stream.read1(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE:
            raise InputError(f"standard input has a line longer than {MAX_LINE:,} bytes, expected a {noun}.")
        if lines:
            lines[0], mark = lines[0].removeprefix(mark), b""
            yield [_decode(line.removesuffix(b"\r")) for line in lines]
    if rest:
        yield [_decode(rest.removeprefix(mark))]


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
