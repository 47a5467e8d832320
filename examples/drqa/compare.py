"""Train the reader at several bit widths and seeds in sequence, and tabulate the scores.

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


def compare(results: Path, nbits: Sequence[int], seeds: Sequence[int], options: Sequence[str]) -> None:
    """Run what `results` lacks: all bit widths at the first seed, then at the next."""
    done = {(run["nbit"], run["seed"]) for run in read(results)}
    for seed in seeds:
        for nbit in nbits:
            if (nbit, seed) in done:
                continue
            command = [sys.executable, "-m", "examples.drqa.train", *options]
            command += ["--nbit", str(nbit), "--seed", str(seed)]
            command += ["--checkpoint", str(results.with_suffix(f".{nbit}-{seed}.pt"))]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            with results.open("a", encoding="utf-8") as file:
                file.write(run.stdout.splitlines()[-1] + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """Read the results; none if the file does not exist."""
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []


def table(runs: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table: for each bit width the mean over seeds, its deviation and its change."""
    by_bits: dict[int, list[dict[str, Any]]] = {}
    for run in runs:
        by_bits.setdefault(run["nbit"], []).append(run)
    lines = ["| bits | seeds | F1 | deviation | change | exact match |", "|---|---|---|---|---|---|"]
    full = _mean(by_bits[32], "f1") if 32 in by_bits else None
    for nbit in sorted(by_bits, reverse=True):
        f1s = [run["f1"] for run in by_bits[nbit]]
        deviation = f"{statistics.stdev(f1s):.2f}" if len(f1s) > 1 else ""
        change = f"{_mean(by_bits[nbit], 'f1') - full:+.2f}" if full is not None and nbit != 32 else ""
        exact = _mean(by_bits[nbit], "exact_match")
        lines.append(
            f"| {nbit} | {len(f1s)} | {statistics.mean(f1s):.2f} | {deviation} | {change} | {exact:.2f} |"
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
    parser.add_argument("--nbits", default="32,2,1", help="bits a value, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    args, options = parser.parse_known_args(argv)
    nbits = [int(n) for n in args.nbits.split(",")]
    compare(args.results, nbits, range(args.seeds), options)
    print(table(read(args.results)))


def _mean(runs: Sequence[dict[str, Any]], field: str) -> float:
    return statistics.mean(run[field] for run in runs)


if __name__ == "__main__":
    main()
