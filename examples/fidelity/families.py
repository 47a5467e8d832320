r"""Measure tables of different compression methods, and evaluate them on tasks.

    python -m examples.fidelity.families --embeddings v.npy --words w.txt --similarity PAIRS \
        --analogies QUESTIONS --sentences SETS --report report.json --results results.jsonl

The methods are uniform levels with rounding to nearest and stochastic, row scales, trellis codes alone and in
the principal basis, and fewer dimensions, at full precision and quantized, so that the measures may rank them
differently. After each table, writes the output of ``smallfry evaluate --json`` and of ``classify.py
--results``, for `ranks.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from examples.codings import CODINGS
from examples.sentence_classification.classify import accuracy, bags
from examples.sentence_classification.sentences import FILES, Dataset, read
from smallfry.compress import quantize
from smallfry.evaluation import (
    ArrayVectors,
    Questions,
    Report,
    evaluate,
    read_analogies,
    read_similarity,
)
from smallfry.table import Table


@dataclass(frozen=True)
class Method:
    """One compression method.

    Attributes
    ----------
    name : str
    nbit : int
        Bits per value.
    divisor : float
        Factor by which the number of dimensions is reduced, to those of the largest singular values.
    options : dict
        Of `quantize`.
    """

    name: str
    nbit: int
    divisor: float = 1
    options: dict[str, Any] = field(default_factory=dict)

    def compress(self, matrix: NDArray[np.float32]) -> tuple[Table, NDArray[np.float32] | None]:
        """Return the table, and the basis ``[dim, kept]`` of its columns if `divisor` is not 1."""
        if self.divisor == 1:
            return quantize(matrix, self.nbit, **self.options), None
        basis = leading(matrix, round(matrix.shape[1] / self.divisor))
        return quantize(matrix @ basis, self.nbit, **self.options), basis


METHODS = [
    *(Method(f"{nbit} uniform", nbit) for nbit in (8, 4, 2, 1)),
    *(Method(f"{nbit} stochastic", nbit, 1, {"rounding": "stochastic"}) for nbit in (2, 1)),
    Method("2 uniform+row-scale", 2, 1, {"row_scale": True}),
    *(Method(f"{nbit} trellis", nbit, 1, CODINGS["trellis"]) for nbit in (4, 3, 2, 1)),
    *(Method(f"{nbit} best", nbit, 1, CODINGS["best"]) for nbit in (4, 3, 2, 1)),
    *(Method(f"dim/{divisor:g}", 32, divisor) for divisor in (1.5, 2, 3, 4, 6, 8)),
    *(Method(f"dim/{divisor:g} 4 uniform", 4, divisor) for divisor in (2, 4)),
]


def leading(matrix: NDArray[np.float32], kept: int) -> NDArray[np.float32]:
    """Return the right singular vectors ``[dim, kept]`` of the largest singular values."""
    wide = matrix.astype(np.float64)
    return np.asarray(np.linalg.eigh(wide.T @ wide)[1][:, ::-1][:, :kept].astype(np.float32))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments().parse_args(argv)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    matrix = np.load(args.embeddings).astype(np.float32)
    words = args.words.read_text("utf-8").split("\n")[: len(matrix)]
    if len(words) != len(matrix):
        raise ValueError(f"{args.embeddings} has {len(matrix)} rows, {args.words} has {len(words)} words.")
    rows = {word: row for row, word in enumerate(words)}
    questions = Questions(
        lambda asked: np.array([rows.get(word, -1) for word in asked], np.int64),
        [read_similarity(path) for path in sorted(args.similarity.glob("*.txt"))],
        [tested for path in sorted(args.analogies.glob("*.txt")) for tested in read_analogies(path)],
    )
    datasets = [read(args.sentences, name, rows) for name in args.sets.split(",")]
    methods = [m for m in METHODS if args.methods is None or m.name in args.methods.split(",")]
    original = ArrayVectors(matrix)
    similar, analogous = questions.score(original)
    report = Report(args.embeddings.name, *original.shape, [], similar, analogous)
    args.results.write_text(_lines("32 uniform", quantize(matrix, 32), datasets, args.seeds), "utf-8")
    for method in tqdm(methods, disable=None):
        table, basis = method.compress(matrix)
        # Mapped back to the original space, which keeps inner products and singular values.
        decoded = table.decode(np.arange(table.rows)) if basis is not None else None
        compressed = ArrayVectors(decoded @ basis.T) if decoded is not None and basis is not None else None
        report.compressed.append(
            evaluate(
                original,
                table,
                name=method.name,
                compressed=compressed,
                questions=questions,
                queries=args.queries,
            )
        )
        args.report.write_text(report.to_json(), "utf-8")
        with args.results.open("a", encoding="utf-8") as results:
            results.write(_lines(method.name, table, datasets, args.seeds))


def _lines(name: str, table: Table, datasets: Sequence[Dataset], seeds: int) -> str:
    runs = [
        {"coding": name, "set": d.name, "seed": seed, "accuracy": accuracy(vectors, d, seed)}
        for d, vectors in ((d, bags(table, d.sentences)) for d in datasets)
        # With fixed splits, all seeds give the same result.
        for seed in range(1 if d.sizes[1] and d.sizes[2] else seeds)
    ]
    return "".join(json.dumps(run) + "\n" for run in runs)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--embeddings", type=Path, required=True, help="word vectors, a .npy matrix")
    parser.add_argument("--words", type=Path, required=True, help="their words, one per line")
    parser.add_argument("--similarity", type=Path, required=True, help="folder of word pairs, *.txt")
    parser.add_argument("--analogies", type=Path, required=True, help="folder of analogies, *.txt")
    parser.add_argument("--sentences", type=Path, required=True, help="folder of sentence sets")
    parser.add_argument("--sets", default=",".join(FILES), help=f"which of them ({','.join(FILES)})")
    parser.add_argument("--methods", help="names of the methods (all)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of the classification (3)")
    parser.add_argument("--queries", type=int, default=1000, help="rows whose neighbors are compared (1000)")
    parser.add_argument("--report", type=Path, required=True, help="JSON file of the measures")
    parser.add_argument("--results", type=Path, required=True, help="accuracies, lines of JSON")
    parser.add_argument("--threads", type=int, help="threads of torch")
    return parser


if __name__ == "__main__":
    main()
