"""Command-line parsing that several verbs share."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields
from typing import Any, NoReturn

from smallfry.cli.terminal import printable
from smallfry.readers import FORMATS
from smallfry.readers.options import ReadOptions


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line; the usage is in its help."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)}; see {self.prog} --help\n")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading a file of vectors."""
    parser.add_argument("--format", choices=FORMATS, help="format of the vectors, to override detection")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--words", metavar="FILE", help="words of the rows of a matrix, one a line")
    words.add_argument(
        "--no-words",
        dest="words",
        action="store_const",
        const=False,
        help="do not use the word list next to a matrix",
    )
    parser.add_argument("--tensor", metavar="NAME", help="matrix in an .npz or .safetensors file")
    parser.add_argument("--member", metavar="NAME", help="file in a .zip archive of several")
    parser.add_argument("--encoding", metavar="NAME", help="encoding of text and word lists (default UTF-8)")
    parser.add_argument("--keep", metavar="FILE", help="read only the vectors of the words of a list")
    parser.add_argument("--limit", type=positive, metavar="N", help="read only the first N vectors")
    parser.add_argument(
        "--strict", action="store_true", help="reject invalid UTF-8 instead of replacing it by U+FFFD"
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="skip and count malformed lines and those with NaN or infinity",
    )
    parser.add_argument(
        "--allow-truncated", action="store_true", help="accept fewer rows than the header declares"
    )


def input_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values of `add_input_options` as keyword arguments of `open_vectors`."""
    return {field.name: getattr(arguments, field.name) for field in fields(ReadOptions)}


def natural(text: str) -> int:
    """Return a non-negative integer from a command line."""
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative integer of at most 18 digits")
    return int(text)


def positive(text: str) -> int:
    """Return a positive integer from a command line."""
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 is not a positive integer")
    return number


def megabytes(text: str) -> float:
    """Return a size in megabytes from a command line."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of megabytes")
    return number


def percentage(text: str) -> float:
    """Return a percentage from a command line."""
    number = _number(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
