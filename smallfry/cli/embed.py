"""``smallfry embed``: encode texts with a text model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from smallfry import console, store
from smallfry.cli import terminal
from smallfry.cli.arguments import Parser
from smallfry.cli.tokens import token_blocks
from smallfry.errors import InputError
from smallfry.export import format_rows
from smallfry.progress import Progress
from smallfry.sfq.atomic import check_distinct, output_folder, replacing
from smallfry.text.encoder import Encoder

_BLOCK_VALUES = 1 << 20


def add_parser(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "embed",
        help="encode texts with a text model",
        description="Encode texts with the .sfq file of a static embedding model. Print a JSON list for "
        "each, or write all vectors to an .npy file.",
    )
    parser.dash_words = True
    parser.add_argument("file", metavar="FILE", help="a .sfq file with a tokenizer")
    parser.add_argument(
        "texts", metavar="TEXT", nargs="*", help="a text; without any, the lines of standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".npy file to create or replace, float32 [texts, dim]"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output is not None:
        if not output.endswith(".npy"):
            raise InputError(f"{output} does not end in .npy, the format of the vectors. Please name it so.")
        output_folder(output)
        check_distinct(arguments.file, output)
    shown = terminal.progress() if output is not None or not sys.stdout.isatty() else nullcontext()
    with store.open(arguments.file) as opened, shown as progress:
        blocks = _encode(opened.encoder(), arguments.texts, progress)
        if output is None:
            for vectors in blocks:
                lists = (row.decode().replace(" ", ", ") for row in format_rows(vectors))
                console.write("".join(f"[{values}]\n" for values in lists))
            return 0
        rows, dim = _write(output, blocks, opened.dim), opened.dim
    facts = [
        ("file", console.printable(output)),
        ("vectors", f"{rows:,} x {dim} (npy)"),
        ("size", terminal.size(os.path.getsize(output))),
    ]
    console.write(terminal.columns(facts) + "\n")
    return 0


def _encode(
    encoder: Encoder, texts: Sequence[str], progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    done = 0
    for block in token_blocks(texts, max(1, _BLOCK_VALUES // encoder.dim), "text"):
        for number, text in enumerate(block, done + 1):
            if not _is_utf8(text):
                raise InputError(f"text {number} is not valid UTF-8. Please convert it.")
        yield encoder.encode(block)
        done += len(block)
        if progress is not None:
            progress("embed", done, len(texts))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write(path: str, blocks: Iterator[NDArray[np.float32]], dim: int) -> int:
    """Write vectors to an .npy file; return their number, which its header has."""
    rows = 0
    with replacing(path) as file:
        _write_header(file, 0, dim)
        for vectors in blocks:
            file.write(vectors.astype("<f4", copy=False).data)
            rows += len(vectors)
        file.seek(0)
        _write_header(file, rows, dim)
    return rows


def _write_header(file: BinaryIO, rows: int, dim: int) -> None:
    # NumPy pads the header, so that it has the same length for any number of rows.
    shape = (rows, dim)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
