r"""Classify sentences by the mean of their fixed word vectors, at several bit widths and seeds.

    python -m examples.sentence_classification.classify --data FOLDER --embeddings vectors.npy \
        --words words.txt

A linear classifier over a bag of words shows the loss of the vectors. Prints a Markdown table of test
accuracy in percent, mean ± deviation over the seeds. A seed draws the splits that a set does not fix, and the
validation sentences that choose the regularization.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from tqdm import tqdm

from examples import codings
from examples.sentence_classification.sentences import FILES, Dataset, Sentences, Split, read
from smallfry.compress import quantize
from smallfry.table import Table

NAMES = [
    "32 uniform",
    *(f"{nbit} uniform" for nbit in (8, 4, 2, 1)),
    *(f"{nbit} {coding}" for coding in ("trellis", "best") for nbit in (4, 3, 2, 1)),
]
"""Bits per value and coding; 32 bits are the original."""

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Candidate weights of the L2 penalty; the validation sentences choose one."""


def accuracy(vectors: NDArray[np.float32], dataset: Dataset, seed: int) -> float:
    """Train on the vectors ``[sentences, dim]`` of a set and return the test accuracy in percent."""
    split = dataset.split(seed)
    features = standardized(vectors, split)
    labels = torch.from_numpy(dataset.sentences.labels)
    torch.manual_seed(seed)
    models = [fit(features[split.train], labels[split.train], penalty) for penalty in PENALTIES]
    best = max(models, key=lambda model: _right(model, features, labels, split.validation))
    return 100 * _right(best, features, labels, split.test)


def bags(table: Table, sentences: Sentences) -> NDArray[np.float32]:
    """Return the mean vector of each sentence; zeros if it has no known word."""
    return table.bag(sentences.ids, sentences.offsets, "mean")


def standardized(features: NDArray[np.float32], split: Split) -> torch.Tensor:
    """Return features less the training mean, divided by the training deviation over all columns."""
    train = features[split.train]
    return torch.from_numpy((features - train.mean(axis=0)) / train.std())


def fit(features: torch.Tensor, labels: torch.Tensor, penalty: float) -> torch.nn.Linear:
    """Return the linear softmax classifier with the least cross-entropy and penalty."""
    model = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(model(features), labels) + penalty * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return model


def table_of(results: Sequence[dict[str, object]]) -> str:
    """Return a Markdown table of mean ± deviation by set and coding, then the means over the sets."""
    names = list(dict.fromkeys(str(r["coding"]) for r in results))
    sets = list(dict.fromkeys(str(r["set"]) for r in results))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    means: dict[str, list[float]] = {name: [] for name in names}
    for one in sets:
        cells = []
        for name in names:
            values = [float(str(r["accuracy"])) for r in results if (r["set"], r["coding"]) == (one, name)]
            means[name].append(statistics.mean(values))
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {deviation:.1f}")
        lines.append(f"| {one} | {' | '.join(cells)} |")
    lines.append(f"| mean | {' | '.join(f'{statistics.mean(means[name]):.2f}' for name in names)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    matrix = np.load(args.embeddings)
    words = args.words.read_text("utf-8").split("\n")[: len(matrix)]
    if len(words) != len(matrix):
        raise ValueError(f"{args.embeddings} has {len(matrix)} rows, {args.words} has {len(words)} words.")
    rows = {word: row for row, word in enumerate(words)}
    datasets = [read(args.data, name, rows) for name in args.sets.split(",")]
    names = args.codings.split(",") if args.codings else NAMES
    results: list[dict[str, object]] = []
    bar = tqdm(total=len(names) * len(datasets) * args.seeds, disable=None)
    for name in names:
        nbit, options = codings.parse(name)
        table = quantize(matrix, nbit, **options)
        for dataset in datasets:
            vectors = bags(table, dataset.sentences)
            for seed in range(args.seeds):
                bar.set_description(f"{name}, {dataset.name}")
                result = {"coding": name, "set": dataset.name, "seed": seed}
                results.append(result | {"accuracy": accuracy(vectors, dataset, seed)})
                bar.update()
    bar.close()
    if args.results:
        args.results.write_text("".join(json.dumps(r) + "\n" for r in results), "utf-8")
    print(table_of(results))


def _right(
    model: torch.nn.Linear, features: torch.Tensor, labels: torch.Tensor, part: NDArray[np.int64]
) -> float:
    with torch.inference_mode():
        return float((model(features[part]).argmax(dim=1) == labels[part]).float().mean())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="directory of the sets' files")
    parser.add_argument("--embeddings", type=Path, required=True, help="word vectors, a .npy matrix")
    parser.add_argument("--words", type=Path, required=True, help="their words, one a line")
    parser.add_argument("--sets", default=",".join(FILES), help=f"sets (default {','.join(FILES)})")
    parser.add_argument("--codings", help=f"bits and coding of each column (default {','.join(NAMES)})")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument(
        "--results", type=Path, help="also write each accuracy to this file as a line of JSON"
    )
    parser.add_argument("--threads", type=int, help="number of torch threads")
    return parser


if __name__ == "__main__":
    main()
