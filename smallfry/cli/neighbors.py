"""``smallfry neighbors``: print the nearest rows of tokens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from smallfry import console, store
from smallfry.cli.arguments import Parser, positive
from smallfry.cli.tokens import UnknownTokens, add_tokens, row_numbers, token_blocks
from smallfry.errors import InputError
from smallfry.neighbors import Neighbor

_BLOCK = 256


def add_parser(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "neighbors",
        help="print the nearest neighbors of tokens",
        description="Print the rows nearest to each token by cosine, exactly, one line for each: the token, "
        "its neighbor and the cosine, separated by tabs. Unknown tokens are named on standard error, and set "
        "exit code 1.",
    )
    add_tokens(parser)
    parser.add_argument("-k", type=positive, default=10, metavar="N", help="number of neighbors (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each token")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    unknown = UnknownTokens()
    with store.open(arguments.file) as opened:
        for tokens in token_blocks(arguments.tokens, _BLOCK):
            ids = row_numbers(tokens, len(opened)) if arguments.ids else opened.find(tokens)
            unknown.add(tokens, (ids >= 0).tolist())
            for token, row in zip(tokens, ids.tolist(), strict=True):
                if row >= 0:
                    found = _neighbors(opened, token, row, arguments.k)
                    for part in _as_json(token, row, found) if arguments.json else _as_lines(token, found):
                        console.write(part)
    return unknown.exit_code()


def _neighbors(opened: store.Store, token: str, row: int, k: int) -> list[Neighbor]:
    try:
        return opened.neighbors(row, k)
    except InputError as error:
        raise InputError(f"{token!r}: {error}") from None


def _as_json(token: str, row: int, found: list[Neighbor]) -> Iterator[str]:
    start = f'{{"query": {json.dumps(token)}, "row": {row}, "neighbors": ['
    for each in found:
        yield start + json.dumps(each._asdict())
        start = ", "
    yield "]}\n" if found else start + "]}\n"


def _as_lines(token: str, found: list[Neighbor]) -> Iterator[str]:
    for each in found:
        name = str(each.row) if each.token is None else console.printable(each.token)
        yield f"{console.printable(token)}\t{name}\t{each.score:.6f}\n"
