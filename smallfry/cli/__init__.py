"""The ``smallfry`` command: one module for each verb."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from functools import cache

import smallfry
from smallfry import console
from smallfry.cli import (
    compress,
    embed,
    evaluate,
    export,
    fetch,
    info,
    lookup,
    neighbors,
    sample,
    serve,
    verify,
)
from smallfry.cli.arguments import Parser
from smallfry.errors import SmallfryError

_VERBS = (compress, export, evaluate, info, verify, lookup, neighbors, embed, sample, serve, fetch)

_EXIT_CODES = """\
exit codes:
  0    done
  1    an error in a file or its data, a file that fails verification, or an unknown token
  2    invalid command line
  130  interrupted (Ctrl-C)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``smallfry`` with `argv` (``sys.argv`` by default) and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot show is escaped instead of raising UnicodeEncodeError.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
    except BrokenPipeError:  # the reader of the output is gone
        return 0
    except (SmallfryError, OSError, MemoryError) as error:
        console.note(f"smallfry: error: {console.sentence(error)}")
        return 1
    return code


@cache  # for programs that run many commands
def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="smallfry",
        description="Compress embedding tables to 1, 2, 3, 4, 8 or 16 bits a value, and serve them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"smallfry {smallfry.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser
