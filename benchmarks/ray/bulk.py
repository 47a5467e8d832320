"""Tokens per second of a bulk job on Ray, against one process that calls the store with the same tokens.

Needs `pip install 'smallfry[ray]'`, and the real data in the folder ``SMALLFRY_DATA``. Tokens are drawn by
their frequency in English; the table is 400,000 × 300 at 2 bits. The time of a job includes the start of its
workers: from tokens in Ray's object store to results there, which are counted and dropped. The sides take
turns; results are the median of the rounds, the lowest and the highest.

    python -m benchmarks.ray.bulk --tokens 20000000
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import pyarrow as pa
import ray

import smallfry
import smallfry.ray
from benchmarks.common.dataset import read_tokens, write_file

ROWS, NBIT, BATCH = 400_000, 2, 4096
BLOCKS = 32
LIST = 20


def main() -> None:
    """Measure all sides and print one line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=20_000_000, help="size of the job (20,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (3)")
    parser.add_argument("--workers", type=int, default=2, help="largest number of workers (2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "words.sfq"
        vocabulary, frequencies = read_tokens(ROWS)
        write_file(file, vocabulary, NBIT)
        drawn = np.random.default_rng(0).choice(ROWS, options.tokens, p=frequencies)
        ray.init(
            address="local",
            num_cpus=options.workers,
            object_store_memory=1 << 30,
            include_dashboard=False,
            log_to_driver=False,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        sides = make_sides(file, pa.array(vocabulary).take(drawn), options.workers)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                begin = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - begin)
        ray.shutdown()
    print(f"{options.tokens:,} tokens, {len(os.sched_getaffinity(0))} cores, Ray {ray.__version__}")
    for name, of_side in seconds.items():
        took = statistics.median(of_side)
        rate, lowest, highest = (options.tokens / 1e6 / s for s in (took, max(of_side), min(of_side)))
        print(f"{name:40} {rate:6.2f} M tokens/s ({lowest:.2f}-{highest:.2f}), {took:.2f} s")


def make_sides(file: Path, tokens: pa.Array, workers: int) -> dict[str, Callable[[], None]]:
    """Return the sides by name: the store in this process, then jobs."""
    store = smallfry.open(file)
    strings = tokens.to_pylist()
    offsets = np.arange(0, len(tokens) + 1, LIST)
    lists = pa.LargeListArray.from_arrays(offsets, tokens[: offsets[-1]])

    def in_one_process(look_up: Callable[[list[str]], object]) -> Callable[[], None]:
        def run() -> None:
            for start in range(0, len(strings), BATCH):
                look_up(strings[start : start + BATCH])

        return run

    def job(column: pa.Array, count: int, **options: object) -> Callable[[], None]:
        dataset = blocks(column)

        def run() -> None:
            found = smallfry.ray.lookup(dataset, "tokens", file, concurrency=count, **options)
            rows = sum(bundle.num_rows() for bundle in found.iter_internal_ref_bundles())
            assert rows == len(column)

        return run

    sides = {
        "Store.find, one process": in_one_process(store.find),
        "Store.lookup, one process": in_one_process(store.lookup),
    }
    for count in sorted({1, workers}):
        sides |= {
            f"job for ids, {count} worker(s)": job(tokens, count, output="ids"),
            f"job for vectors, {count} worker(s)": job(tokens, count),
            f"job for means of {LIST} tokens, {count} worker(s)": job(lists, count, pool="mean"),
        }
    return sides


def blocks(column: pa.Array) -> ray.data.Dataset:
    """Return a dataset in the object store."""
    size = -(-len(column) // BLOCKS)
    tables = [
        pa.Table.from_batches([pa.record_batch({"tokens": column[start : start + size]})])
        for start in range(0, len(column), size)
    ]
    return ray.data.from_arrow(tables)


if __name__ == "__main__":
    main()
