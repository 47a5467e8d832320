"""``smallfry evaluate``: what compression costs."""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from smallfry.cli import terminal
from smallfry.cli.compress import add_input_options, natural, positive
from smallfry.errors import InputError
from smallfry.quantization.options import CODEBOOKS, Options
from smallfry.quantization.rotation import KINDS
from smallfry.table import NBITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from smallfry.evaluation import Fidelity, Questions, Vectors
    from smallfry.progress import Progress
    from smallfry.readers import PackedTokens
    from smallfry.vocabulary import Vocabulary

_Read = TypeVar("_Read")

_MEASURES = ("similarity", "analogies", "eigenspace", "neighbours", "error")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "evaluate",
        help="measure what compression costs",
        description="Measure what compressed vectors keep of the original: geometry, neighbours, word "
        "similarity and analogies. Give .sfq files of the same words, or let --nbits compress in memory.",
    )
    parser.add_argument("original", metavar="ORIGINAL", help="the vectors before compression")
    parser.add_argument("compressed", metavar="FILE", nargs="*", help=".sfq files made of them")
    parser.add_argument(
        "--nbits", type=_widths, metavar="N,…", help="compress to these bits a value (1,2,4,8 without FILE)"
    )
    parser.add_argument(
        "--codings",
        type=_codings,
        default=[("uniform", Options())],
        metavar="CODING,…",
        help="how --nbits compresses: a codebook, with +center, +row-scale or a rotation appended, as in "
        "grouped+center+principal (uniform)",
    )
    parser.add_argument(
        "--similarity", action="append", default=[], metavar="PATH", help="file or folder of word pairs"
    )
    parser.add_argument(
        "--analogies", action="append", default=[], metavar="PATH", help="file or folder of analogies"
    )
    parser.add_argument(
        "--restrict", type=positive, metavar="N", help="only the first N rows can answer an analogy"
    )
    parser.add_argument(
        "--queries", type=positive, default=1000, metavar="N", help="rows asked for neighbours (1000)"
    )
    parser.add_argument(
        "--neighbours", type=positive, default=10, metavar="K", help="neighbours of a row (10)"
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of everything random (0)")
    parser.add_argument(
        "--max-loss", type=_points, metavar="POINTS", help="recommend the smallest table that loses no more"
    )
    parser.add_argument(
        "--measure", choices=_MEASURES, default="eigenspace", help="what --max-loss is about (eigenspace)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots")
    add_input_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.evaluation import ArrayVectors, Report, recommend
    from smallfry.evaluation.html import page
    from smallfry.evaluation.measure import histogram

    _check(arguments)
    with terminal.progress() as progress, contextlib.ExitStack() as stack:
        matrix, tokens = _read_original(arguments, stack, progress)
        original = ArrayVectors(matrix)
        questions = _questions(arguments, tokens)
        similar, analogous = questions.ask(original, progress) if questions is not None else ([], [])
        measured = [
            *_files(arguments, original, tokens, questions, stack, progress),
            *_codes(arguments, matrix, questions, progress),
        ]
        name = Path(arguments.original).name
        report = Report(name, *original.shape, measured, similar, analogous)
        chosen = None
        if arguments.max_loss is not None:
            chosen = recommend(report, arguments.max_loss, arguments.measure)
            report = replace(report, recommended=None if chosen is None else chosen.name)
        advice = _advice(arguments, chosen)
        values = histogram(original) if arguments.html is not None else None
    print(report.to_json() if arguments.json else report.to_text())
    if advice is not None and not arguments.json:
        print(f"\n{advice}")
    if values is not None:
        Path(arguments.html).write_text(page(report, *values, advice), "utf-8")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse before the work what would fail after it."""
    asked = arguments.measure
    if arguments.max_loss is not None and asked in ("similarity", "analogies") and not vars(arguments)[asked]:
        raise InputError(
            f"--measure {asked} needs questions. Give files with --{asked}, or choose another measure."
        )
    if arguments.html is not None and not Path(arguments.html).absolute().parent.is_dir():
        raise InputError(f"{arguments.html} lies in no folder that there is. Make it, or name another file.")
    widths = {nbit for _, options in arguments.codings for nbit in options.nbits}
    if arguments.nbits and not widths & set(arguments.nbits):
        names = ", ".join(name for name, _ in arguments.codings)
        raise InputError(
            f"{names} codes at {', '.join(map(str, sorted(widths)))} bits, and --nbits asks for "
            f"{', '.join(map(str, arguments.nbits))}. Ask for one of these widths, or choose another coding."
        )


def _read_original(
    arguments: argparse.Namespace, stack: contextlib.ExitStack, progress: Progress | None
) -> tuple[NDArray[np.float32], PackedTokens | None]:
    from smallfry.compress import spool
    from smallfry.readers import open_vectors
    from smallfry.readers.spool import ScratchMatrix

    with open_vectors(
        arguments.original,
        format=arguments.format,
        words=arguments.words,
        tensor=arguments.tensor,
        limit=arguments.limit,
        strict=arguments.strict,
        skip_bad_lines=arguments.skip_bad_lines,
        progress=progress,
    ) as source:
        scratch = stack.enter_context(ScratchMatrix(tempfile.gettempdir(), source.dim))
        tokens = spool(source, scratch)
    return scratch.mapped(), tokens


def _questions(arguments: argparse.Namespace, tokens: PackedTokens | None) -> Questions | None:
    from smallfry.evaluation import Questions, read_analogies, read_similarity
    from smallfry.vocabulary import Vocabulary

    if not arguments.similarity and not arguments.analogies:
        return None
    if tokens is None:
        raise InputError(f"{arguments.original} has no words to ask about. Give them with --words.")
    sets = [s for read in _each(arguments.analogies, read_analogies) for s in read]
    pairs = _each(arguments.similarity, read_similarity)
    return Questions(Vocabulary.build(tokens).find, pairs, sets, arguments.restrict)


def _files(
    arguments: argparse.Namespace,
    original: Vectors,
    tokens: PackedTokens | None,
    questions: Questions | None,
    stack: contextlib.ExitStack,
    progress: Progress | None,
) -> list[Fidelity]:
    from smallfry import store
    from smallfry.evaluation import TableVectors, evaluate

    measured = []
    for path in arguments.compressed:
        opened = stack.enter_context(store.open(path))
        ids = _same_words(path, opened.vocabulary, tokens)
        measured.append(
            evaluate(
                original,
                opened.table,
                name=Path(path).stem,
                coding=Path(path).stem,
                compressed=TableVectors(opened.table, ids),
                questions=questions,
                queries=arguments.queries,
                k=arguments.neighbours,
                seed=arguments.seed,
                progress=progress,
            )
        )
    return measured


def _codes(
    arguments: argparse.Namespace,
    matrix: NDArray[np.float32],
    questions: Questions | None,
    progress: Progress | None,
) -> list[Fidelity]:
    from smallfry.evaluation import ArrayVectors, evaluate
    from smallfry.quantization.quantize import quantize_matrix

    nbits = arguments.nbits or ([] if arguments.compressed else [1, 2, 4, 8])
    chosen = [(n, name, options) for n in nbits for name, options in arguments.codings if n in options.nbits]
    measured = []
    for nbit, name, options in chosen:
        table = quantize_matrix(matrix, nbit, replace(options, seed=arguments.seed), progress)
        measured.append(
            evaluate(
                ArrayVectors(matrix),
                table,
                name=f"{nbit} {name}",
                coding=name,
                questions=questions,
                queries=arguments.queries,
                k=arguments.neighbours,
                seed=arguments.seed,
                progress=progress,
            )
        )
    return measured


def _advice(arguments: argparse.Namespace, chosen: Fidelity | None) -> str | None:
    if arguments.max_loss is None:
        return None
    limit = f"at most {arguments.max_loss:g} points by {arguments.measure}"
    if chosen is None:
        return f"No table measured loses {limit}."
    return f"Recommended: {chosen.name}, {terminal.size(chosen.nbytes)}, which loses {limit}."


def _same_words(
    path: str, vocabulary: Vocabulary | None, tokens: PackedTokens | None
) -> NDArray[np.int64] | None:
    """Return the row in a file of each row of the original; None where they are the same by number."""
    if vocabulary is None or tokens is None:
        return None
    ids = vocabulary.find_utf8(tokens.buf, tokens.offsets)
    missing = int((ids < 0).sum())
    if missing:
        raise InputError(
            f"{path} lacks {missing:,} of the {len(ids):,} words of the original. Give the vectors that it "
            "was made of, or the first of them with --limit."
        )
    return ids


def _each(paths: Sequence[str], read: Callable[[Path], _Read]) -> list[_Read]:
    """Read every file named, and every .txt, .tsv and .csv file of every folder named."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.glob("*") if p.suffix in (".txt", ".tsv", ".csv"))
        if path.is_dir() and not inside:
            raise InputError(
                f"{path} holds no file of questions: expected names that end in .txt, .tsv or .csv"
            )
        files += inside if path.is_dir() else [path]
    return [read(file) for file in files]


def _widths(text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) in NBITS for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of bits a value, such as 1,2,4,8")
    return [int(part) for part in text.split(",")]


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of points, 0 to 100")
    return points


def _codings(text: str) -> list[tuple[str, Options]]:
    codings = []
    for name in text.split(","):
        codebook, *extras = name.split("+")
        rotate = [extra for extra in extras if extra in KINDS]
        if codebook not in CODEBOOKS or len(rotate) > 1 or set(extras) - {"center", "row-scale", *rotate}:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no way to code: expected {', '.join(CODEBOOKS)}, then any of +center, "
                f"+row-scale, and one of {', '.join('+' + kind for kind in KINDS)}"
            )
        options = Options(codebook, "center" in extras, rotate[0] if rotate else None, "row-scale" in extras)
        codings.append((name, options))
    return codings
