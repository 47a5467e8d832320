"""Train the reader with several codings and seeds in sequence, and tabulate the scores.

    python -m examples.drqa.compare results.jsonl --data dev-v1.1.json.gz --embeddings vectors.npy

Each result is appended to the file as one line of JSON; runs that the file already has are not
repeated, so a stopped comparison resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_FULL = "32 uniform"


def compare(results: Path, codings: Sequence[str], seeds: Sequence[int], options: Sequence[str]) -> None:
    """Run what `results` lacks: all codings at the first seed, then at the next."""
    done = {(run["coding"], run["seed"]) for run in read(results)}
    for seed in seeds:
        for name in codings:
            if (name, seed) in done:
                continue
            nbit, coding = name.split(" ")
            command = [sys.executable, "-m", "examples.drqa.train", *options]
            command += ["--nbit", nbit, "--coding", coding, "--seed", str(seed)]
            command += ["--checkpoint", str(results.with_suffix(f".{nbit}-{coding}-{seed}.pt"))]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            with results.open("a", encoding="utf-8") as file:
                file.write(run.stdout.splitlines()[-1] + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """Read the results; none if the file does not exist."""
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []


def table(runs: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table: for each coding the mean over seeds, its deviation and its change."""
    by_coding: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_coding.setdefault(run["coding"], []).append(run)
    lines = ["| coding | seeds | F1 | deviation | change | exact match |", "|---|---|---|---|---|---|"]
    full = _mean(by_coding[_FULL], "f1") if _FULL in by_coding else None
    for name, same in by_coding.items():
        f1s = [run["f1"] for run in same]
        deviation = f"{statistics.stdev(f1s):.2f}" if len(f1s) > 1 else ""
        change = f"{_mean(same, 'f1') - full:+.2f}" if full is not None and name != _FULL else ""
        exact = _mean(same, "exact_match")
        lines.append(
            f"| {name} | {len(f1s)} | {statistics.mean(f1s):.2f} | {deviation} | {change} | {exact:.2f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Every other option goes to train.py.",
        allow_abbrev=False,
    )
    parser.add_argument("results", type=Path, help="file of JSON lines, appended to")
    parser.add_argument(
        "--codings",
        default="32 uniform,2 uniform,2 trellis,2 best",
        help="bits a value and coding of each, separated by commas",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    args, options = parser.parse_known_args(argv)
    compare(args.results, args.codings.split(","), range(args.seeds), options)
    print(table(read(args.results)))


def _mean(runs: Sequence[dict[str, Any]], field: str) -> float:
    return statistics.mean(run[field] for run in runs)


if __name__ == "__main__":
    main()
