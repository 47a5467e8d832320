"""``smallfry export``: write the vectors of a ``.sfq`` file to a file in another format."""

from __future__ import annotations

import argparse
import os

from smallfry import console, store
from smallfry.cli import terminal
from smallfry.export import FORMATS, export_file


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "export",
        help="write the vectors of a .sfq file in another format",
        description="Write the vectors of a .sfq file, as lookups return them, and their tokens as text, "
        "word2vec binary, .npy or .safetensors. The words of a matrix go to a .txt file next to it.",
    )
    parser.add_argument("file", metavar="FILE", help="a .sfq file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="file to create or replace; - is standard output, as GloVe text by default",
    )
    parser.add_argument("--format", choices=FORMATS, help="format, instead of that of OUT's suffix")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with store.open(arguments.file) as opened, terminal.progress() as progress:
        if arguments.output == "-":
            with console.binary_output() as output:
                report = export_file(opened, output, arguments.format or "glove", progress=progress)
        else:
            report = export_file(opened, arguments.output, arguments.format, progress=progress)
        rows, dim, rotated = len(opened), opened.dim, opened.table.rotation is not None
        notes = ["without the tokenizer, which only a .sfq file holds"] if opened.has_tokenizer else []
    if rotated:
        notes.append("in the rotated basis, as lookups return them")
    if report.spaced:
        notes.append(f"tokens with spaces, which few other programs read: {report.spaced:,}")
    if arguments.output == "-":
        for note in notes:
            console.note(f"smallfry: {note}")
        return 0
    facts = [
        ("file", console.printable(arguments.output)),
        ("vectors", f"{rows:,} x {dim} ({report.format})"),
        *(("", note) for note in notes),
        ("size", terminal.size(os.path.getsize(arguments.output))),
    ]
    if report.words is not None:
        facts.append(("words", console.printable(os.fspath(report.words))))
    console.write(terminal.columns(facts) + "\n")
    return 0
