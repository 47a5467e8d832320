"""``smallfry evaluate``: measure what compression costs."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry import console, store
from smallfry.cli import terminal
from smallfry.cli.arguments import add_input_options, input_options, natural, percentage, positive
from smallfry.errors import InputError
from smallfry.evaluation import (
    ArrayVectors,
    Questions,
    Report,
    TableVectors,
    evaluate,
    read_analogies,
    read_similarity,
    recommend,
)
from smallfry.evaluation.measure import histogram
from smallfry.evaluation.report import MEASURES
from smallfry.pages import sequential
from smallfry.progress import Progress
from smallfry.quantization.options import BEST, CODEBOOK_KINDS, Options
from smallfry.quantization.quantize import quantize_matrix
from smallfry.readers import PackedTokens, open_vectors
from smallfry.readers.spool import ScratchMatrix, spool
from smallfry.sfq.atomic import check_distinct, output_folder, replacing
from smallfry.table import NBITS, Table
from smallfry.vocabulary import Vocabulary


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "evaluate",
        help="measure what compression costs",
        description="Compare compressed vectors with the original: geometry, nearest neighbors, word "
        "similarity and analogies. Give .sfq files of the same words, or compress in memory with --nbits.",
    )
    parser.add_argument("original", metavar="ORIGINAL", help="the vectors before compression")
    parser.add_argument("compressed", metavar="FILE", nargs="*", help=".sfq files made of them")
    parser.add_argument(
        "--nbits",
        type=_nbits,
        metavar="N,…",
        help="compress to these bit widths (default 1,2,4,8 without FILE)",
    )
    parser.add_argument(
        "--codings",
        type=_codings,
        default=[("uniform", Options())],
        metavar="CODING,…",
        help="compress with these codings: uniform or trellis, then any of +center, +row-scale, +rotate and "
        "+12 (state bits), as in trellis+center; or best (default uniform)",
    )
    parser.add_argument(
        "--similarity", action="append", default=[], metavar="PATH", help="file or directory of word pairs"
    )
    parser.add_argument(
        "--analogies", action="append", default=[], metavar="PATH", help="file or directory of analogies"
    )
    parser.add_argument(
        "--test-encoding", metavar="NAME", help="encoding of the files of word tests (default UTF-8)"
    )
    parser.add_argument(
        "--restrict", type=positive, metavar="N", help="only the first N rows can answer an analogy"
    )
    parser.add_argument(
        "--queries", type=positive, default=1000, metavar="N", help="query rows for neighbors (default 1000)"
    )
    parser.add_argument(
        "--neighbors", type=positive, default=10, metavar="K", help="neighbors of a row (default 10)"
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="random seed (default 0)")
    parser.add_argument(
        "--max-loss",
        type=percentage,
        metavar="POINTS",
        help="recommend the smallest table that loses at most this many percentage points",
    )
    parser.add_argument(
        "--measure", choices=MEASURES, default="eigenspace", help="measure of --max-loss (default eigenspace)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots")
    add_input_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from smallfry.evaluation.html import page

    _check(arguments)
    with terminal.progress() as progress, contextlib.ExitStack() as stack:
        inputs = _read(arguments, stack, progress)
        report, advice = _advise(arguments, _measure(arguments, inputs, progress))
        html = None
        if arguments.html is not None:
            html = page(report, *histogram(ArrayVectors(inputs.matrix)), advice)
    text = report.to_json() if arguments.json else report.to_text()
    if advice is not None and not arguments.json:
        text += f"\n\n{advice}"
    console.write(text + "\n")
    if inputs.words:
        console.note(f"smallfry: words: {inputs.words}")
    if html is not None:
        with replacing(arguments.html) as file:
            file.write(html.encode())
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise InputError or OSError for what would fail only after the measurement."""
    measure = arguments.measure
    scores = {"similarity": arguments.similarity, "analogies": arguments.analogies}
    if arguments.max_loss is not None and not scores.get(measure, True):
        raise InputError(
            f"--measure {measure} needs test files. Give files with --{measure}, or choose another measure."
        )
    if arguments.html is not None:
        output_folder(arguments.html)
        named = (arguments.original, arguments.words, arguments.keep, *arguments.compressed)
        for path in (*filter(None, named), *_files(arguments.similarity), *_files(arguments.analogies)):
            check_distinct(path, arguments.html)
    supported = {nbit for _, options in arguments.codings for nbit in options.nbits}
    if arguments.nbits and not supported & set(arguments.nbits):
        names = ", ".join(name for name, _ in arguments.codings)
        raise InputError(
            f"{names} supports {', '.join(map(str, sorted(supported)))} bits, not "
            f"{', '.join(map(str, arguments.nbits))}. Use one of these widths, or another coding."
        )


class _Inputs(NamedTuple):
    """The original vectors, their words, and the word tests."""

    matrix: NDArray[np.float32]
    tokens: PackedTokens | None
    words: str
    """File that the words of a matrix are from; empty without one."""
    questions: Questions | None


def _read(arguments: argparse.Namespace, stack: contextlib.ExitStack, progress: Progress | None) -> _Inputs:
    with open_vectors(arguments.original, progress=progress, **input_options(arguments)) as source:
        if arguments.html is not None and source.report.words_path is not None:
            check_distinct(source.report.words_path, arguments.html)
        scratch = stack.enter_context(ScratchMatrix(tempfile.gettempdir(), source.dim))
        tokens = spool(source, scratch)
    return _Inputs(scratch.mapped(), tokens, source.report.words, _read_questions(arguments, tokens))


def _read_questions(arguments: argparse.Namespace, tokens: PackedTokens | None) -> Questions | None:
    if not arguments.similarity and not arguments.analogies:
        return None
    if tokens is None:
        raise InputError(f"{arguments.original} has no words. Give them with --words.")
    encoding = arguments.test_encoding
    analogies = [tests for file in _files(arguments.analogies) for tests in read_analogies(file, encoding)]
    similarity = [read_similarity(file, encoding) for file in _files(arguments.similarity)]
    return Questions(Vocabulary.build(tokens, unnamed=True).find, similarity, analogies, arguments.restrict)


def _files(paths: Sequence[str]) -> list[Path]:
    """Return each file, and each .txt, .tsv and .csv file of each directory."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.glob("*") if p.suffix in (".txt", ".tsv", ".csv"))
        if not found:
            raise InputError(f"{path} has no test files: expected names that end in .txt, .tsv or .csv")
        files += found
    return files


def _measure(arguments: argparse.Namespace, inputs: _Inputs, progress: Progress | None) -> Report:
    original, questions = ArrayVectors(inputs.matrix), inputs.questions
    similarity, analogies = questions.score(original, progress) if questions is not None else ([], [])
    compressed = [
        evaluate(
            original,
            table,
            name=name,
            coding=coding,
            compressed=TableVectors(table, ids),
            questions=questions,
            queries=arguments.queries,
            k=arguments.neighbors,
            seed=arguments.seed,
            progress=progress,
        )
        for name, coding, table, ids in _candidates(arguments, inputs, progress)
    ]
    return Report(Path(arguments.original).name, *original.shape, compressed, similarity, analogies)


def _candidates(
    arguments: argparse.Namespace, inputs: _Inputs, progress: Progress | None
) -> Iterator[tuple[str, str, Table, NDArray[np.int64] | None]]:
    """Yield name, coding and table of each file, then of the tables compressed in memory.

    The fourth item is the table's row for each row of the original; None if their order is the same.
    """
    for path in arguments.compressed:
        name = Path(path).stem
        with store.open(path) as opened, sequential(opened.table.codes):
            yield name, name, opened.table, _match_rows(path, opened.vocabulary, inputs.tokens)
    for nbit in arguments.nbits or ([] if arguments.compressed else [1, 2, 4, 8]):
        for coding, options in arguments.codings:
            if nbit in options.nbits:
                table = quantize_matrix(inputs.matrix, nbit, replace(options, seed=arguments.seed), progress)
                yield f"{nbit} {coding}", coding, table, None


def _match_rows(
    path: str, vocabulary: Vocabulary | None, tokens: PackedTokens | None
) -> NDArray[np.int64] | None:
    if vocabulary is None or tokens is None:
        return None
    buf, offsets = tokens
    if np.array_equal(vocabulary.tokens[: len(buf)], buf) and np.array_equal(
        vocabulary.offsets[: len(offsets)], offsets
    ):
        return np.arange(len(offsets) - 1)  # the same rows, unnamed ones too
    ids = vocabulary.find_utf8(buf, offsets)
    missing = len(ids) - len(np.unique(ids[ids >= 0]))
    if missing:
        raise InputError(
            f"{path} lacks {missing:,} of the {len(ids):,} words of the original. Give the vectors that it "
            "was made of, or select them with --limit or --keep."
        )
    return ids


def _advise(arguments: argparse.Namespace, report: Report) -> tuple[Report, str | None]:
    """Return the report with its recommendation, and the recommendation as a sentence."""
    if arguments.max_loss is None:
        return report, None
    chosen = recommend(report, arguments.max_loss, arguments.measure)
    limit = f"at most {arguments.max_loss:g} points by {arguments.measure}"
    if chosen is None:
        return report, f"No table measured loses {limit}."
    advice = f"Recommended: {chosen.name}, {terminal.size(chosen.nbytes)}, which loses {limit}."
    return replace(report, recommended=chosen.name), advice


def _nbits(text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) in NBITS for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of bit widths, such as 1,2,4,8")
    return [int(part) for part in text.split(",")]


def _codings(text: str) -> list[tuple[str, Options]]:
    return [(name, _coding(name)) for name in text.split(",")]


def _coding(name: str) -> Options:
    if name == "best":
        return Options(**BEST)
    kind, *extras = name.split("+")
    trellis = {"rotate", "12"} if kind == "trellis" else set()
    if kind not in CODEBOOK_KINDS or set(extras) - {"center", "row-scale"} - trellis:
        raise argparse.ArgumentTypeError(
            f"{name!r} is not a coding: expected best, or {' or '.join(CODEBOOK_KINDS)} and any of +center, "
            "+row-scale, and with trellis +rotate, +12"
        )
    return Options(
        kind,
        center="center" in extras,
        rotate="rotate" in extras,
        row_scale="row-scale" in extras,
        trellis_state_bits=12 if "12" in extras else 8,
    )
