"""Rank correlation of the measures of ``smallfry evaluate --json`` with what downstream tasks reach.

    python benchmarks/fidelity_ranks.py --reports report.json … [--classification results.jsonl]
        [--drqa results.jsonl]

The reports are of one set of vectors, and the results of it: `classify.py --results` and `compare.py` write
them. Prints a Markdown table of |Spearman| over the compressed tables that a task has a figure for.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.evaluate.words import spearman

_MEASURES = {
    "eigenspace overlap": "eigenspace_overlap",
    "k-NN overlap": "knn_overlap",
    "PIP loss": "pip_loss",
    "Frobenius error": "frobenius_error",
    "error after a linear fit": "fit_error",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reports", type=Path, nargs="+", required=True)
    parser.add_argument("--classification", type=Path)
    parser.add_argument("--drqa", type=Path)
    args = parser.parse_args()
    tables = {f["name"]: f for path in args.reports for f in json.loads(path.read_text())["compressed"]}
    tasks = {"similarity": _pooled(tables, "similarity"), "analogies": _pooled(tables, "analogies")}
    if args.classification:
        tasks["classification"] = _means(args.classification, "coding", "accuracy")
    if args.drqa:
        by_bits = _means(args.drqa, "nbit", "f1")
        tasks["DrQA F1"] = {f"{nbit} uniform": value for nbit, value in by_bits.items()}
    print(f"| measure | {' | '.join(tasks)} |")
    print("|---" * (len(tasks) + 1) + "|")
    for title, field in _MEASURES.items():
        cells = []
        for figures in tasks.values():
            names = [name for name in tables if name in figures]
            measured, reached = (
                [source[name] for name in names] for source in (_column(tables, field), figures)
            )
            cells.append(f"{abs(spearman(np.array(measured), np.array(reached))):.2f} ({len(names)})")
        print(f"| {title} | {' | '.join(cells)} |")


def _column(tables: dict[str, Any], field: str) -> dict[str, float]:
    return {name: table[field] for name, table in tables.items()}


def _pooled(tables: dict[str, Any], field: str) -> dict[str, float]:
    """Return the mean over all questions of the analogies, over the sets of word similarity."""
    pooled = {}
    for name, table in tables.items():
        scores = [s for s in table[field] if s["value"] is not None]
        weights = [s["found"] if field == "analogies" else 1 for s in scores]
        if scores:
            total = sum(w * s["value"] for w, s in zip(weights, scores, strict=True))
            pooled[name] = total / sum(weights)
    return pooled


def _means(path: Path, key: str, value: str) -> dict[str, float]:
    values = defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        values[str(run[key])].append(float(run[value]))
    return {name: statistics.mean(found) for name, found in values.items()}


if __name__ == "__main__":
    main()
