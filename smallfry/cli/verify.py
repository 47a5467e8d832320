"""``smallfry verify``: check a whole ``.sfq`` file."""

from __future__ import annotations

import argparse
import time

from smallfry import console
from smallfry.cli import terminal


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "verify",
        help="check every digest and every rule of a .sfq file",
        description="Read a whole .sfq file; check every digest and every rule of the format.",
    )
    parser.add_argument("file", metavar="FILE", help="a .sfq file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.sfq.verify import verify

    start = time.perf_counter()
    with terminal.progress() as progress:
        report = verify(arguments.file, progress)
    found = f", {report.tokens:,} tokens found at their rows" if report.tokens else ""
    console.write(
        f"{console.printable(arguments.file)}: good: {len(report.tensors)} digests agree{found}; "
        f"{terminal.size(report.nbytes)} in {time.perf_counter() - start:.2f} s\n"
    )
    return 0
