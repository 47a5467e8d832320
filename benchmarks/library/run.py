"""Measure the library and its server against alternatives, each with a target.

Both sides of a comparison take turns in one run, with the same number of threads; the result is the median of
the rounds. Rows are real vectors at the scale of published ones, tokens are drawn by their frequency in
English. Needs the packages of the extra ``bench``, and the real data in the folder ``SMALLFRY_DATA``.

    python -m benchmarks.library.run                     # 400,000 rows
    python -m benchmarks.library.run --quick --only tokens
    python -m benchmarks.library.run --original PATH     # also against a checkout of HazyResearch/smallfry
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

from tqdm import tqdm

from benchmarks.common.comparison import Comparison, print_comparisons
from benchmarks.common.dataset import Matrix
from benchmarks.common.processes import ROOT
from benchmarks.library import compression, decode, modules, tokens
from benchmarks.library.chart import draw
from benchmarks.library.workload import Workload
from benchmarks.server import footprint
from smallfry import kernels

RESULTS = ROOT / "benchmarks" / "results"

Measure = Callable[[Workload], Iterable[Comparison]]

GROUPS: dict[str, Measure] = {
    decode.GROUP: decode.compare_decoding,
    modules.GROUP: modules.compare_modules,
    tokens.GROUP: tokens.compare_tokens,
    compression.TENSOR: compression.compare_tensors,
    compression.TEXT: compression.compare_texts,
    footprint.START: footprint.compare_starts,
    footprint.MEMORY: footprint.compare_memory,
}


def main() -> None:
    """Run the measurements; print and write them group by group."""
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
            f"{Matrix(workload.rows).shape[1]} vectors{'; quick, so results are rough' if quick else ''}"
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
    options.chart.write_text(draw(comparisons))
    met = sum(row.met for row in comparisons)
    print(f"\n{met} of {len(comparisons)} targets met. Written: {options.out}, {options.chart}")
    if not options.original:
        print("The original module was left out; --original PATH (make bench ORIGINAL=PATH) includes it.")
    if max(loads) > 1.5 * machine["cores"]:
        print(f"Other processes used the machine (load {max(loads):.0f}): check the spread.")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=GROUPS, help="measure only this group; repeatable")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, few rounds: rough results")
    parser.add_argument("--original", type=Path, metavar="PATH", help="a checkout of HazyResearch/smallfry")
    parser.add_argument("--out", type=Path, default=RESULTS / "library.json", help="JSON file of the results")
    parser.add_argument("--chart", type=Path, default=RESULTS / "library.svg", help="SVG file of the chart")
    return parser.parse_args()


def describe_machine() -> dict[str, Any]:
    """Return what the results depend on."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "kernels": kernels.simd() if kernels.native else "NumPy",
    }


if __name__ == "__main__":
    main()
