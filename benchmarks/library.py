"""Measure the library and its server against their peers, each beside its target.

Both sides of a row take turns in one run, with as many threads each; the figure is the median of the rounds.
Rows are real vectors at the scale of published ones, tokens come by their frequency in English. Needs the
packages of the extra ``bench`` and the real data.

    python benchmarks/library.py                         # 400,000 rows
    python benchmarks/library.py --quick --only tokens
    python benchmarks/library.py --original PATH         # also against a checkout of HazyResearch/smallfry
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import decoding
import quantization
import serving
import tokens
from comparison import Comparison, print_comparisons
from plot import draw
from tqdm import tqdm
from traffic import Matrix
from workload import Workload

from smallfry import kernels

RESULTS = Path(__file__).with_name("results")

Measure = Callable[[Workload], Iterable[Comparison]]

GROUPS: dict[str, Measure] = {
    decoding.GROUP: decoding.compare_decoding,
    tokens.GROUP: tokens.compare_tokens,
    quantization.TENSOR: quantization.compare_tensors,
    quantization.TEXT: quantization.compare_texts,
    serving.START: serving.compare_starts,
    serving.MEMORY: serving.compare_memory,
}


def main() -> None:
    """Run the measurements, and print and write them group by group."""
    options = parse_options()
    quick = options.quick
    start = time.monotonic()
    comparisons: list[Comparison] = []
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(
            rows=40_000 if quick else 400_000,
            rounds=3 if quick else 15,
            seconds=0.02 if quick else 0.1,
            folder=Path(folder),
            original=options.original,
        )
        machine = describe_machine()
        print(
            f"{machine['cores']} cores, kernels: {machine['kernels']}; {workload.rows:,} × "
            f"{Matrix(workload.rows).shape[1]} vectors{'; quick, so figures are rough' if quick else ''}"
        )
        for group in tqdm(options.only or list(GROUPS), disable=not sys.stderr.isatty(), leave=False):
            measured = list(GROUPS[group](workload))
            print(f"\n{group}, {time.monotonic() - start:.0f} s")
            print_comparisons(measured)
            comparisons += measured
            loads.append(os.getloadavg()[0])
            results = {
                "machine": machine,
                "options": {"rows": workload.rows, "rounds": workload.rounds, "seconds": workload.seconds},
                "loads": loads,
                "comparisons": [row.as_json() for row in comparisons],
            }
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=2) + "\n")
    options.plot.write_text(draw(comparisons))
    met = sum(row.met for row in comparisons)
    print(f"\n{met} of {len(comparisons)} targets met. Written: {options.out}, {options.plot}")
    if not options.original:
        print("Without --original PATH (make bench ORIGINAL=PATH) the original module is left out.")
    if max(loads) > 1.5 * machine["cores"]:
        print(f"Other processes kept the machine busy (load {max(loads):.0f}): look at the spread.")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=GROUPS, help="measure this alone; repeatable")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, few rounds: rough")
    parser.add_argument("--original", type=Path, metavar="PATH", help="a checkout of HazyResearch/smallfry")
    parser.add_argument("--out", type=Path, default=RESULTS / "library.json", help="where the figures go")
    parser.add_argument("--plot", type=Path, default=RESULTS / "library.svg", help="where the plot goes")
    return parser.parse_args()


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "kernels": kernels.simd() if kernels.native else "NumPy",
    }


if __name__ == "__main__":
    main()
