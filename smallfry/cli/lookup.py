"""``smallfry lookup``: print the vectors of tokens."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import store
from smallfry.cli import terminal
from smallfry.errors import InputError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "lookup",
        help="print the vectors of tokens",
        description="Print one line for each token: the token and its values, as in a GloVe file. "
        "Unknown tokens print zeros, are named on standard error, and set exit code 1.",
    )
    parser.add_argument("file", metavar="FILE", help="a .sfq file")
    parser.add_argument("tokens", metavar="TOKEN", nargs="+", help="a token; a row number with --ids")
    parser.add_argument("--ids", action="store_true", help="look up row numbers instead of tokens")
    parser.add_argument("--packed", action="store_true", help="print the packed codes in hexadecimal")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--oov",
        choices=("zero", "mean", "error"),
        default="zero",
        help="value of unknown tokens (default zero)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with store.open(arguments.file, oov=arguments.oov) as opened:
        if arguments.ids:
            ids = np.array([_row(text) for text in arguments.tokens])
            values, found = _rows(opened, ids), np.ones(len(ids), np.bool_)
        else:
            ids = opened.find(arguments.tokens)
            values, found = opened.lookup(arguments.tokens)
        result: dict[str, Any] = {"dim": opened.dim, "nbit": opened.nbit}
        if arguments.packed:
            lines = [code.tobytes().hex() for code in opened.codes(ids)]
            result["codes"] = lines
        else:
            # str gives the shortest digits of this float32; their float64 rounds back to it.
            numbers = [[str(value) for value in vector] for vector in values]
            lines = [" ".join(vector) for vector in numbers]
            result["vectors"] = [[float(number) for number in vector] for vector in numbers]
    result["found"] = found.tolist()
    if arguments.json:
        print(json.dumps(result))
    else:
        for token, line in zip(arguments.tokens, lines, strict=True):
            print(terminal.printable(token), line)
    return _note_unknown([token for token, known in zip(arguments.tokens, found, strict=True) if not known])


def _row(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise InputError(f"{text!r} is not a row number. Omit --ids to look up tokens.")
    return int(text)


def _rows(opened: store.Store, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    try:
        return opened.rows(ids)
    except IndexError as error:
        raise InputError(str(error)) from None


def _note_unknown(tokens: list[str]) -> int:
    if not tokens:
        return 0
    shown = ", ".join(repr(token) for token in tokens[:5]) + (", …" if len(tokens) > 5 else "")
    print(f"smallfry: not in the vocabulary: {shown}", file=sys.stderr)
    return 1
