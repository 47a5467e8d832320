r"""Measure what compression costs text models, against their vectors at 32 bits.

    python -m examples.fidelity.texts --squad dev-v1.1.json.gz --sentences SETS DIRECTORY …

A directory is that of a static embedding model, as ``smallfry compress`` takes it. Prints a Markdown table
for each: the cosines of text vectors to those at 32 bits, over the questions of SQuAD and the sentences of
all sets, and the test accuracy of a linear classifier over the vectors of sentences, in percent.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import smallfry
from examples import codings
from examples.sentence_classification.classify import accuracy
from examples.sentence_classification.sentences import FILES, Dataset, read
from smallfry.compress import compress_file

NAMES = [
    "32 uniform",
    *(f"{nbit} uniform" for nbit in (8, 4, 2)),
    *(f"{nbit} {coding}" for coding in ("trellis", "best") for nbit in (4, 3, 2)),
]
"""Bits per value and coding; the others are compared with the first."""

Vectors = NDArray[np.float32]


def rows(
    directory: Path, names: Sequence[str], asked: Sequence[str], datasets: Sequence[Dataset], seeds: int
) -> Iterator[list[str]]:
    """Yield the cells of each coding of a model."""
    batches = asked, [text for dataset in datasets for text in dataset.texts]
    reference: list[Vectors] = []
    for name in names:
        found, nbytes = encoded(directory, name, batches)
        reference = reference or found
        compared = [cosines(*pair) for pair in zip(reference, found, strict=True)]
        parts = np.split(found[1], np.cumsum([len(dataset.texts) for dataset in datasets])[:-1])
        scores = [
            statistics.mean(accuracy(vectors, dataset, seed) for seed in range(seeds))
            for vectors, dataset in zip(parts, datasets, strict=True)
        ]
        yield [
            name,
            f"{nbytes / 1e6:.2f}",
            *(f"{value:.4f}" for each in compared for value in (each.mean(), each.min())),
            *(f"{score:.1f}" for score in scores),
            f"{statistics.mean(scores):.2f}",
        ]


def encoded(directory: Path, name: str, batches: Sequence[Sequence[str]]) -> tuple[list[Vectors], int]:
    """Compress a model; return the vectors of batches of texts, in its own basis, and the table's bytes."""
    nbit, options = codings.parse(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.sfq")
        compress_file(directory, file, nbit, **options)
        with smallfry.open(file) as store:
            encoder = store.encoder()
            vectors = [store.unrotated(encoder.encode(texts)) for texts in batches]
            return vectors, sum(store.table.nbytes.values())


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows; pairs whose first row is zeros are left out."""
    known = a.any(axis=1)
    a, b = a[known].astype(np.float64), b[known].astype(np.float64)
    return np.einsum("ij,ij->i", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) + 1e-32)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    datasets = [read(args.sentences, name, {}) for name in args.sets.split(",")]
    names = args.codings.split(",") if args.codings else NAMES
    columns = ["coding", "MB", "questions", "lowest", "sentences", "lowest", *args.sets.split(","), "mean"]
    for directory in args.directories:
        print(f"\n{directory}\n\n| {' | '.join(columns)} |", f"|---{'|--:' * (len(columns) - 1)}|", sep="\n")
        for cells in rows(directory, names, questions(args.squad), datasets, args.seeds):
            print(f"| {' | '.join(cells)} |", flush=True)


def questions(path: Path) -> list[str]:
    """Return the questions of SQuAD."""
    with gzip.open(path) as file:
        articles = json.load(file)["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [pair["question"] for paragraph in paragraphs for pair in paragraph["qas"]]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directories", type=Path, nargs="+", help="static embedding models")
    parser.add_argument("--squad", type=Path, required=True, help="SQuAD 1.1, a .json.gz file")
    parser.add_argument("--sentences", type=Path, required=True, help="folder of sentence sets")
    parser.add_argument("--sets", default=",".join(FILES), help=f"which of them ({','.join(FILES)})")
    parser.add_argument("--codings", help=f"bits and codings; compared with the first ({','.join(NAMES)})")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of the classification (3)")
    parser.add_argument("--threads", type=int, help="threads of torch")
    return parser


if __name__ == "__main__":
    main()
