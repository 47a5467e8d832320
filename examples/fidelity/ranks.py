"""Rank correlation of the measures of ``smallfry evaluate --json`` with the scores of downstream tasks.

    python -m examples.fidelity.ranks --reports report.json … [--classification results.jsonl]
        [--drqa results.jsonl]

Reports and results must belong to one set of vectors. `classify.py --results` and `compare.py` write results,
`families.py` writes both. Prints a Markdown table of Spearman's correlation over the compressed tables with a
score in the task: 1 if the measure ranks them as the task does, -1 if it reverses the order.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.evaluation.words import spearman

# Field of the report, and 1 if larger is better, -1 if smaller is.
_MEASURES = {
    "eigenspace overlap": ("eigenspace_overlap", 1),
    "k-NN overlap": ("knn_overlap", 1),
    "PIP loss": ("pip_loss", -1),
    "Frobenius error": ("frobenius_error", -1),
    "error after a linear fit": ("fit_error", -1),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reports", type=Path, nargs="+", required=True, help="reports, JSON")
    parser.add_argument("--classification", type=Path, help="accuracies, lines of JSON")
    parser.add_argument("--drqa", type=Path, help="F1 scores of DrQA, lines of JSON")
    parser.add_argument("--tables", action="store_true", help="first print the scores of each table")
    args = parser.parse_args()
    tables = {f["name"]: f for path in args.reports for f in json.loads(path.read_text())["compressed"]}
    tasks = {"similarity": _pooled(tables, "similarity"), "analogies": _pooled(tables, "analogies")}
    if args.classification:
        tasks["classification"] = _means(args.classification, "coding", "accuracy")
    if args.drqa:
        tasks["DrQA F1"] = _means(args.drqa, "coding", "f1")
    if args.tables:
        print(scores(tables, tasks), end="\n\n")
    print(ranks(tables, tasks))


def ranks(tables: Mapping[str, Any], tasks: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of the rank correlation of measures and tasks, with the number of tables."""
    lines = [f"| measure | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for title, (field, sign) in _MEASURES.items():
        cells = []
        for reached in tasks.values():
            names = [name for name in tables if name in reached]
            measured = np.array([sign * tables[name][field] for name in names])
            rank = spearman(measured, np.array([reached[name] for name in names]))
            cells.append(f"{rank:.2f} ({len(names)})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scores(tables: Mapping[str, Any], tasks: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of measures and task scores, one row per compressed table."""
    lines = [
        f"| | MB | {' | '.join([*_MEASURES, *tasks])} |",
        "|---" * (len(_MEASURES) + len(tasks) + 2) + "|",
    ]
    for name, table in tables.items():
        cells = [f"{table['nbytes'] / 1e6:.2f}", *(f"{table[field]:.3f}" for field, _ in _MEASURES.values())]
        found = (reached.get(name) for reached in tasks.values())
        cells += [
            "" if value is None else f"{value:.3f}" if value <= 1 else f"{value:.2f}" for value in found
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pooled(tables: Mapping[str, Any], field: str) -> dict[str, float]:
    """Return the mean over all questions of analogies, or over the sets of word similarity."""
    pooled = {}
    for name, table in tables.items():
        scores = [s for s in table[field] if s["value"] is not None]
        weights = [s["found"] if field == "analogies" else 1 for s in scores]
        if scores:
            total = sum(w * s["value"] for w, s in zip(weights, scores, strict=True))
            pooled[name] = total / sum(weights)
    return pooled


def _means(path: Path, key: str, value: str) -> dict[str, float]:
    """Return the mean over the sets, with equal weights, of the mean over the seeds."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        values[str(run[key]), run.get("set", "")].append(float(run[value]))
    by_name = defaultdict(list)
    for (name, _), found in values.items():
        by_name[name].append(statistics.mean(found))
    return {name: statistics.mean(found) for name, found in by_name.items()}


if __name__ == "__main__":
    main()
