"""Command-line parsing that several verbs share."""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NoReturn

from smallfry import console
from smallfry.readers import FORMATS
from smallfry.readers.options import ReadOptions

_POSITIONAL = "\0"


class Parser(argparse.ArgumentParser):
    """A parser of options and positionals in any order, whose errors take one line.

    argparse gets the options first, then the positionals, each behind a NUL: it would divide those of
    ``nargs="*"`` at an option, drop each ``--``, and take a word with a dash for an option.
    """

    dash_words = False
    """Whether an unknown word with one dash, such as ``-lrb-``, is a positional instead of an error."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse words; all have to be known, unless they are the arguments of a verb."""
        words = sys.argv[1:] if args is None else args
        if self._subparsers is not None or "-" not in self.prefix_chars:
            return super().parse_known_args(words, namespace)
        options, positionals = self._separate(words)
        marked = [_POSITIONAL + word for word in positionals]
        parsed, unknown = super().parse_known_args([*options, *marked], namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        for action in self._get_positional_actions():
            value = getattr(parsed, action.dest)
            plain = [word[1:] for word in value] if isinstance(value, list) else value[1:]
            setattr(parsed, action.dest, plain)
        return parsed, []

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line and exit with code 2."""
        plain = console.printable(message.replace(_POSITIONAL, ""))
        self.exit(2, f"{self.prog}: error: {plain}; see {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:
        if file is sys.stderr:
            console.note(message)
        else:
            console.write(message)

    def _separate(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the options, each in one word with its value, and the positionals."""
        options: list[str] = []
        positionals: list[str] = []
        queue = deque(words)
        while queue:
            word = queue.popleft()
            if word == "--":
                positionals += queue
                break
            action = self._find_option(word)
            if action is None:
                self._check_positional(word)
                positionals.append(word)
            elif not _lacks_value(word, action):
                options.append(word)
            elif queue and not self._is_option(queue[0]):
                options.append(f"{word}={queue.popleft()}")
            else:
                self.error(f"argument {'/'.join(action.option_strings)}: expected one argument")
        return options, positionals

    def _find_option(self, word: str) -> argparse.Action | None:
        """Return the option that a word names: whole, abbreviated, or with a value."""
        actions = self._option_string_actions
        name = word.partition("=")[0]
        if name in actions:
            return actions[name]
        if not word.startswith("--"):
            # A token such as -king- is not the option -k.
            return actions.get(word[:2]) if not self.dash_words or word[2:].isdecimal() else None
        matches = [option for option in actions if option.startswith(name) and name != "--"]
        if len(matches) > 1:
            self.error(f"{name} is ambiguous, expected one of {', '.join(matches)}")
        return actions[matches[0]] if matches else None

    def _is_option(self, word: str) -> bool:
        return word == "--" or self._find_option(word) is not None

    def _check_positional(self, word: str) -> None:
        if word == "-" or not word.startswith("-") or (self.dash_words and not word.startswith("--")):
            return
        close = get_close_matches(word.partition("=")[0], self._option_string_actions, 1)
        hint = f"did you mean {close[0]}?" if close else "write -- before a word that begins with a dash"
        self.error(f"unrecognized option {word}: {hint}")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading a file of vectors."""
    parser.add_argument("--format", choices=FORMATS, help="format of the vectors, to override detection")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--words", metavar="FILE", help="words of the rows of a matrix: text or JSON")
    words.add_argument(
        "--no-words",
        dest="words",
        action="store_const",
        const=False,
        help="do not use the word list next to a matrix",
    )
    parser.add_argument("--tensor", metavar="NAME", help="matrix in an .npz or .safetensors file")
    parser.add_argument(
        "--member", metavar="NAME", help="file in a .zip archive of several, or the end of its name"
    )
    parser.add_argument("--encoding", metavar="NAME", help="encoding of text and word lists (default UTF-8)")
    parser.add_argument("--keep", metavar="FILE", help="read only the vectors of the words of a list")
    parser.add_argument("--limit", type=positive, metavar="N", help="read only the first N vectors")
    parser.add_argument(
        "--strict", action="store_true", help="reject invalid UTF-8 instead of replacing it by U+FFFD"
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="skip and count malformed lines and those with NaN or infinity; rows of a matrix become zeros",
    )
    parser.add_argument(
        "--allow-truncated", action="store_true", help="accept fewer rows than the header declares"
    )


def input_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values of `add_input_options` as keyword arguments of `open_vectors`."""
    return {field.name: getattr(arguments, field.name) for field in fields(ReadOptions)}


def _lacks_value(word: str, action: argparse.Action) -> bool:
    return action.nargs != 0 and "=" not in word and (word.startswith("--") or len(word) == 2)


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
