"""``smallfry compress``: compress a file of vectors to a ``.sfq`` file."""

from __future__ import annotations

import argparse
import time

from smallfry import console, store
from smallfry.cli import terminal
from smallfry.cli.arguments import add_input_options, input_options, megabytes, natural
from smallfry.errors import InputError
from smallfry.quantization.options import BEST, CODEBOOK_KINDS, ROUNDINGS, TRELLIS_STATE_BITS
from smallfry.table import NBITS


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "compress",
        help="compress a file of vectors, or a static embedding model, to a .sfq file",
        description="Compress a file of vectors, or the directory of a static embedding model (model2vec, "
        "StaticEmbedding or wordllama), to a .sfq file. The input format is detected. A --tensor with *, ? "
        "or [ selects several matrices of a .safetensors file or a sharded model as the rows of one table.",
    )
    parser.add_argument(
        "input", metavar="INPUT", help="vectors, also compressed, or a directory; - is standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=_file, required=True, help=".sfq file to create or replace"
    )
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument(
        "--nbit",
        type=int,
        choices=NBITS,
        metavar="N",
        help="bits a value: 1, 2, 3 (trellis only), 4, 8, 16 or 32 (default 2)",
    )
    bits.add_argument(
        "--max-error", type=float, metavar="E", help="use the fewest bits whose relative error is at most E"
    )
    bits.add_argument(
        "--target-mb", type=megabytes, metavar="MB", help="use the most bits that fit in MB million bytes"
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="smallest error: a trellis codebook with 12 state bits, and --center, --rotate, --row-scale",
    )
    parser.add_argument(
        "--codebook-kind",
        choices=CODEBOOK_KINDS,
        help="evenly spaced levels, or learned values at 1 to 4 bits (default uniform)",
    )
    parser.add_argument(
        "--trellis-state-bits",
        type=int,
        choices=TRELLIS_STATE_BITS,
        metavar="L",
        help="bits that select a value of a trellis codebook: 8, or 12 for a smaller error (default 8)",
    )
    parser.add_argument("--center", action="store_true", help="subtract the mean row, which is stored")
    parser.add_argument(
        "--rotate",
        action="store_true",
        help="rotate to the principal basis, in which lookups then return vectors; needs a trellis codebook",
    )
    parser.add_argument("--row-scale", action="store_true", help="store a scale for each row (2 bytes)")
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default="nearest",
        help="rounding of values (default nearest)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="random seed (default 0)")
    add_input_options(parser)
    parser.add_argument(
        "--keep-order",
        choices=("file", "list"),
        default="file",
        help="order of the rows with --keep: of INPUT or of the list (default file)",
    )
    parser.add_argument(
        "--heads",
        action="store_true",
        help="store where the rows of each tensor begin; needs a pattern for --tensor",
    )
    parser.add_argument(
        "--paged",
        action="store_true",
        help="store the scale of each row next to its codes, and no row across two pages; a pattern for "
        "--tensor implies it",
    )
    parser.set_defaults(run=_run)


def _file(text: str) -> str:
    """Return the path of a file; reject standard output."""
    if text == "-":
        raise argparse.ArgumentTypeError("a .sfq file cannot be piped: expected a path, such as ./-")
    return text


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.compress import compress_file

    options = {name: value for name in BEST if (value := getattr(arguments, name))}
    if arguments.best:
        if options:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise InputError(f"--best chooses {names} itself. Please omit one of them.")
        options = BEST
    start = time.perf_counter()
    with terminal.progress() as progress:
        report = compress_file(
            arguments.input,
            arguments.output,
            2 if arguments.nbit is None else arguments.nbit,
            max_error=arguments.max_error,
            max_nbytes=None if arguments.target_mb is None else int(arguments.target_mb * 1e6),
            rounding=arguments.rounding,
            seed=arguments.seed,
            keep_order=arguments.keep_order,
            heads=arguments.heads,
            paged=arguments.paged,
            estimate=terminal.announce,
            progress=progress,
            **options,
            **input_options(arguments),
        )
    seconds = time.perf_counter() - start
    with store.open(arguments.output) as written:
        facts = [
            ("file", console.printable(arguments.output)),
            ("made of", console.printable(f"{arguments.input} ({report.format})")),
            *(("", note) for note in report.notes()),
            *terminal.contents(written),
            ("seconds", f"{seconds:.1f}"),
            *terminal.sizes(written),
        ]
        if written.table.rotation is not None:
            facts.append(("", "vectors are in the principal basis; dot products are unchanged"))
    console.write(terminal.columns(facts) + "\n")
    return 0
