"""``smallfry compress``: from a file of vectors to a ``.sfq`` file."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from smallfry.cli import terminal
from smallfry.quantization.options import CODEBOOKS, ROUNDINGS
from smallfry.quantization.rotation import KINDS
from smallfry.readers import FORMATS
from smallfry.table import NBITS

if TYPE_CHECKING:
    from smallfry.compress import CompressReport


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "compress",
        help="compress a file of vectors to a .sfq file",
        description="Compress a file of vectors to a .sfq file. The format is told by content.",
    )
    parser.add_argument("input", metavar="INPUT", help="vectors, also gzipped; - is standard input")
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=_file, required=True, help="the .sfq file to make or replace"
    )
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument(
        "--nbit",
        type=int,
        choices=NBITS,
        default=2,
        metavar="N",
        help="bits a value: 1, 2, 4, 8, 16 or 32 (2)",
    )
    bits.add_argument(
        "--max-error", type=float, metavar="E", help="the fewest bits whose relative error is at most E"
    )
    bits.add_argument(
        "--target-mb", type=_megabytes, metavar="MB", help="the most bits that fit in so many million bytes"
    )
    parser.add_argument(
        "--codebook",
        choices=CODEBOOKS,
        default="uniform",
        help="evenly spaced levels, the best levels, or the best values of each byte (uniform)",
    )
    parser.add_argument(
        "--center", action="store_true", help="compress differences from the mean, which is stored"
    )
    parser.add_argument(
        "--rotate", choices=KINDS, help="rotate the columns; vectors are looked up in the rotated basis"
    )
    parser.add_argument(
        "--row-scale", action="store_true", help="store a scale for each row, two bytes more a row"
    )
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default="nearest",
        help="how values are rounded (nearest)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of everything random (0)")
    add_input_options(parser)
    parser.set_defaults(run=_run)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on how a file of vectors is read."""
    parser.add_argument(
        "--format", choices=FORMATS, help="format of INPUT, where its content is told wrongly"
    )
    parser.add_argument("--words", metavar="FILE", help="words of the rows of a matrix, one a line")
    parser.add_argument("--tensor", metavar="NAME", help="which matrix of an .npz or .safetensors file")
    parser.add_argument("--limit", type=positive, metavar="N", help="take the first N vectors only")
    parser.add_argument(
        "--strict", action="store_true", help="refuse invalid UTF-8 instead of replacing it by U+FFFD"
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="skip and count malformed lines and those with NaN or infinity",
    )


def natural(text: str) -> int:
    """Return a number of 0 or more from a command line."""
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more, of 18 digits at most")
    return int(text)


def positive(text: str) -> int:
    """Return a number of 1 or more from a command line."""
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 is no number of 1 or more")
    return number


def _megabytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of million bytes above 0")
    return number


def _file(text: str) -> str:
    """Return the path of a file, which standard output is not."""
    if text == "-":
        raise argparse.ArgumentTypeError("a .sfq file is mapped, not piped: expected a path (./- is one)")
    return text


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.compress import compress_file

    with terminal.progress() as progress:
        report = compress_file(
            arguments.input,
            arguments.output,
            arguments.nbit,
            max_error=arguments.max_error,
            max_nbytes=None if arguments.target_mb is None else int(arguments.target_mb * 1e6),
            rounding=arguments.rounding,
            seed=arguments.seed,
            codebook=arguments.codebook,
            center=arguments.center,
            rotate=arguments.rotate,
            row_scale=arguments.row_scale,
            format=arguments.format,
            words=arguments.words,
            tensor=arguments.tensor,
            limit=arguments.limit,
            strict=arguments.strict,
            skip_bad_lines=arguments.skip_bad_lines,
            progress=progress,
        )
    print(_text(report, arguments.input))
    return 0


def _text(report: CompressReport, input: str) -> str:
    facts = [
        ("file", terminal.printable(report.output)),
        ("made of", terminal.printable(f"{input} ({report.format})")),
        *(("", note) for note in report.read.notes()),
        ("rows", f"{report.rows:,}{'' if report.nbytes['token_offsets'] else ' (no vocabulary)'}"),
        ("dim", str(report.dim)),
        ("bits a value", str(report.nbit)),
        ("codebook kind", f"{report.kind}, clip {report.clip:.6g}"),
        ("relative error", f"{report.frobenius_error:.6g}"),
        ("seconds", f"{report.seconds:.1f}"),
    ]
    return terminal.columns(facts + terminal.sizes(report.nbytes, report.file_nbytes, report.baseline_nbytes))
