"""What the commands write to the standard streams: output, and messages of one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import BinaryIO, TextIO, cast

from smallfry.errors import InputError

MAX_MESSAGE = 500
"""Characters of a message, with its prefix and newline."""


def sentence(error: BaseException) -> str:
    """Return the message of an error as one line."""
    if isinstance(error, OSError) and error.strerror is not None:
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return printable(f"{name}{error.strerror}")
    if isinstance(error, MemoryError):
        return printable(f"not enough memory. {error}".rstrip())
    return printable(str(error) or type(error).__name__)


def printable(text: str) -> str:
    """Return `text` with control characters and line breaks escaped, so that it cannot drive a terminal."""
    return text if text.isprintable() else text.translate(_Escapes())


def shorten(text: str, limit: int = MAX_MESSAGE - 1) -> str:
    """Return `text` without its middle if it is longer than `limit` characters.

    The beginning says what is wrong, the end what to do.
    """
    if len(text) <= limit:
        return text
    end = limit // 3
    return f"{text[: limit - end - 3]} … {text[-end:]}"


def note(message: str) -> None:
    """Print a message of one line to standard error, which may be closed or full."""
    try:
        sys.stderr.write(f"{shorten(message)}\n")
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def write(text: str) -> None:
    """Print `text` to standard output."""
    with _naming_output():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def binary_output() -> Iterator[BinaryIO]:
    """Yield standard output for bytes."""
    with _naming_output():
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def binary_input() -> BufferedReader:
    """Return standard input for bytes.

    Raises
    ------
    InputError
        It is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed. Please give a file, or pipe data in.")
    return cast(BufferedReader, sys.stdin.buffer)


class _Escapes:
    """Maps the code of a character that is not printable to its escape sequence, for `str.translate`."""

    def __getitem__(self, code: int) -> int | str:
        character = chr(code)
        return code if character.isprintable() else repr(character)[1:-1]


@contextmanager
def _naming_output() -> Iterator[None]:
    """Name standard output in an error of writing to it."""
    try:
        yield
    except OSError as error:
        _discard(sys.stdout)
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, "standard output") from None


def _discard(stream: TextIO) -> None:
    """Discard what a stream has not written, which fails again when the interpreter exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
