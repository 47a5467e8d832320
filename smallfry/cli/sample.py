"""``smallfry sample``: create a small vocabulary for experiments."""

from __future__ import annotations

import argparse

from smallfry import console


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "sample",
        help="create a small vocabulary from Python's documentation",
        description="Learn word vectors from the documentation in the Python installation, as GloVe text.",
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="text file to create or replace")
    parser.add_argument("--dim", metavar="N", type=int, default=128, help="values in a vector (default 128)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.sample import make_sample

    words = make_sample(arguments.output, dim=arguments.dim)
    output = console.printable(arguments.output)
    console.write(f"{output}: {words:,} words x {arguments.dim}, most frequent first\n")
    return 0
