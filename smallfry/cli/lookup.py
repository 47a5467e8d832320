"""``smallfry lookup``: print the vectors of tokens."""

from __future__ import annotations

import argparse
import json

import numpy as np

from smallfry import console, store
from smallfry.cli.arguments import Parser
from smallfry.cli.tokens import UnknownTokens, add_tokens, row_numbers, token_blocks
from smallfry.export import format_rows

_BLOCK_VALUES = 1 << 20


def add_parser(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "lookup",
        help="print the vectors of tokens",
        description="Print one line for each token: the token and its values, as in a GloVe file. "
        "Unknown tokens print zeros, are named on standard error, and set exit code 1.",
    )
    add_tokens(parser)
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
    unknown = UnknownTokens()
    with store.open(arguments.file, oov=arguments.oov) as opened:
        printer = _Json(opened, arguments.packed) if arguments.json else _Lines()
        for tokens in token_blocks(arguments.tokens, max(1, _BLOCK_VALUES // opened.dim)):
            values, found = _look_up(opened, tokens, arguments)
            printer.write(tokens, values, found)
            unknown.add(tokens, found)
        printer.close()
    return unknown.exit_code()


def _look_up(
    opened: store.Store, tokens: list[str], arguments: argparse.Namespace
) -> tuple[list[str], list[bool]]:
    """Return the values or codes of tokens as text, and whether each is known."""
    if arguments.ids:
        ids = row_numbers(tokens, len(opened))
        vectors, found = opened.rows(ids), np.ones(len(ids), np.bool_)
    else:
        vectors, found = opened.lookup(tokens)
    if not arguments.packed:
        return [row.decode() for row in format_rows(vectors)], found.tolist()
    if not arguments.ids:
        ids = opened.find(tokens)
    return [code.tobytes().hex() for code in opened.codes(ids)], found.tolist()


class _Lines:
    """Prints a line for each token."""

    def write(self, tokens: list[str], values: list[str], found: list[bool]) -> None:
        lines = zip(map(console.printable, tokens), values, strict=True)
        console.write("".join(f"{token} {value}\n" for token, value in lines))

    def close(self) -> None:
        pass


class _Json:
    """Prints one JSON object, block by block."""

    def __init__(self, opened: store.Store, packed: bool) -> None:
        field = "codes" if packed else "vectors"
        self._start = f'{{"dim": {opened.dim}, "nbit": {opened.nbit}, "{field}": ['
        self._packed = packed
        self._found: list[bool] = []

    def write(self, tokens: list[str], values: list[str], found: list[bool]) -> None:
        if self._packed:
            items = [f'"{code}"' for code in values]
        else:
            items = [f"[{vector.replace(' ', ', ')}]" for vector in values]
        console.write(self._start + ", ".join(items))
        self._start = ", "
        self._found += found

    def close(self) -> None:
        start = "" if self._found else self._start
        console.write(f'{start}], "found": {json.dumps(self._found)}}}\n')
