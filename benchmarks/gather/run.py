"""Gather rows of a paged table of 20,000,000 rows: rates, latencies, cold reads and memory, against targets.

One thread gathers from trellis tables of random codes. Takes two minutes, 2 GB of disk and 5 GB of memory.
Needs torch.

    python -m benchmarks.gather.run
    python -m benchmarks.gather.run --only cold --folder /data
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import smallfry
from benchmarks.common.comparison import Comparison, Spread, print_comparisons, speedup
from benchmarks.common.processes import ROOT, module, private_bytes, pss
from benchmarks.common.timing import Timing, take_turns
from benchmarks.gather.process import ROWS as COLD_ROWS
from benchmarks.gather.process import evict
from benchmarks.gather.tables import DIM, write_table
from smallfry.pages import sequential

ROWS = 20_000_000
FEWER = 4_000_000
"""Rows of the tables that are compared with matrices."""
BATCH, TOKENS, HEADS = 65_536, 512, 16
PROCESSES = 4
GROUPS = ("warm", "against", "cold", "processes", "limit", "open")
RATE, TOKEN_RATE, SMALL_US, PAGES, PRIVATE_MB, OPEN_MS = 20e6, 600e3, {16: 5.0, 48: 8.0}, 1.05, 30.0, 5.0

Prepare = Callable[[], tuple[Any, ...]]


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=GROUPS, action="append", help="a group of measurements; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--seconds", type=float, default=0.3, help="time of each side in each round (0.3)")
    parser.add_argument("--folder", help="where the tables are made; the system's temporary one by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gather.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        comparisons = list(compare(Path(folder), options.only or GROUPS, options.rounds, options.seconds))
    print_comparisons(comparisons)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([row.as_json() for row in comparisons], indent=2) + "\n")


def compare(folder: Path, groups: Sequence[str], rounds: int, seconds: float) -> Iterator[Comparison]:
    """Make one table after the other, and measure it."""
    path, plain = folder / "table.sfq", None
    if "cold" in groups:
        write_table(path, ROWS, 3, paged=False)
        plain = _cold(path)
    if "warm" in groups:
        write_table(path, ROWS, 2)
        yield from _warm(path, 2, rounds, seconds)
    if set(groups) - {"open"}:
        write_table(path, ROWS, 3)
    if "warm" in groups:
        yield from _warm(path, 3, rounds, seconds)
    if "against" in groups:
        yield from _against(path, folder, rounds, seconds)
    if "processes" in groups:
        yield from _processes(path)
    if plain is not None:
        yield from _compare_cold(plain, _cold(path))
    if "limit" in groups:
        yield _limit(path)
    if "open" in groups:
        yield from (_open(path, rows) for rows in (ROWS, 10 * ROWS))


def _warm(path: Path, nbit: int, rounds: int, seconds: float) -> Iterator[Comparison]:
    store, rng = smallfry.open(path), np.random.default_rng(0)
    with sequential(store.table.codes):
        _ = np.asarray(store.table.codes)[:, ::64].max()  # reads the file

    def rows(*shape: int) -> Callable[..., object]:
        """Return the gather into a buffer of torch."""
        out = torch.empty((*shape, DIM), dtype=torch.bfloat16)
        return lambda ids: store.gather(ids, out=out, threads=1)

    def plain(*shape: int) -> Callable[..., object]:
        """Return the gather into an array of NumPy."""
        out = np.empty((*shape, DIM), np.float32)
        return lambda ids: store.gather(ids, out=out, threads=1)

    def rate(timing: Timing, count: int) -> Spread:
        return Spread.of([count / median for median in timing.round_medians])

    large = take_turns({"bf16": rows(BATCH), "f32": plain(BATCH)}, rounds, seconds, _ids(rng, BATCH))
    yield Comparison(
        "warm",
        f"{nbit} bits: rows, batches of {BATCH:,}, bfloat16",
        "",
        rate(large["bf16"], BATCH),
        RATE,
        unit="/s",
        took=f"float32: {rate(large['f32'], BATCH).median:,.0f}/s",
    )
    for count, target in SMALL_US.items():
        small = take_turns({"torch": rows(count), "NumPy": plain(count)}, rounds, seconds, _ids(rng, count))
        for side, timing in small.items():
            yield Comparison(
                "warm",
                f"{nbit} bits: p50 of {count} rows, {'bfloat16' if side == 'torch' else 'float32'} ({side})",
                "",
                Spread.of([median * 1e6 for median in timing.round_medians]),
                target,
                at_least=False,
                unit="µs",
            )
    tokens = take_turns({"": rows(TOKENS, HEADS)}, rounds, seconds, _ids(rng, TOKENS, HEADS))[""]
    what = f"{nbit} bits: tokens of {HEADS} rows, batches of {TOKENS}, bfloat16"
    yield Comparison("warm", what, "", rate(tokens, TOKENS), TOKEN_RATE, unit="/s")
    for name, ids in (
        ("one id", np.repeat(rng.integers(0, ROWS, (15, 1)), BATCH, axis=1)),
        ("ids by Zipf's law", rng.zipf(1.1, (15, BATCH)) * 7919 % ROWS),
    ):
        timing = take_turns({"": rows(BATCH)}, rounds, seconds, _batches(ids))[""]
        yield Comparison(
            "warm",
            f"{nbit} bits: rows of {name}, batches of {BATCH:,}, bfloat16",
            "distinct ids",
            speedup(timing, large["bf16"]),
            1.0,
            took=f"{BATCH / statistics.median(timing.round_medians):,.0f}/s",
        )


def _against(path: Path, folder: Path, rounds: int, seconds: float) -> Iterator[Comparison]:
    """Compare with a bfloat16 matrix of torch, and with rows of bytes and a scale each in a map of NumPy."""
    store, rng = smallfry.open(path), np.random.default_rng(1)
    matrix = torch.zeros((FEWER, DIM), dtype=torch.bfloat16)
    raw = np.lib.format.open_memmap(folder / "raw.npy", "w+", np.uint8, (FEWER, DIM))
    raw[:] = 1
    scale = np.ones((FEWER, 1), np.float32)

    def of_bytes(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return (raw[ids].astype(np.float32) - np.float32(128)) * scale[ids]

    for what, shape in (
        (f"{BATCH:,} rows", (BATCH,)),
        (f"{TOKENS} tokens of {HEADS} rows", (TOKENS * HEADS,)),
        ("48 rows", (48,)),
        ("16 rows", (16,)),
    ):
        half = torch.empty((*shape, DIM), dtype=torch.bfloat16)
        single = np.empty((*shape, DIM), np.float32)
        timings = take_turns(
            {
                "bf16": lambda ids, out=half: store.gather(ids, out=out, threads=1),
                "torch": lambda ids: torch.nn.functional.embedding(torch.from_numpy(ids), matrix),
                "f32": lambda ids, out=single: store.gather(ids, out=out, threads=1),
                "bytes": of_bytes,
            },
            rounds,
            seconds,
            _ids(rng, *shape, rows=FEWER),
        )
        for ours, theirs, name in (
            ("bf16", "torch", "torch.nn.functional.embedding, bfloat16"),
            ("f32", "bytes", "NumPy map of bytes and scales, float32"),
        ):
            yield Comparison(
                "against",
                f"{what} of {FEWER:,}, 3 bits",
                f"{name} ({timings[theirs].p50_ms * 1e3:,.0f} µs)",
                speedup(timings[ours], timings[theirs]),
                1.0,
                took=f"{timings[ours].p50_ms * 1e3:,.1f} µs",
            )
    (folder / "raw.npy").unlink()


def _processes(path: Path) -> Iterator[Comparison]:
    command = module("benchmarks.gather.process", "share", str(path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(PROCESSES)]  # type: ignore[call-overload]
    try:
        rates = [json.loads(process.stdout.readline())["rate"] for process in running]
        shared = sum(pss(process.pid) for process in running) - path.stat().st_size
        private = [private_bytes(process.pid) / 1e6 for process in running]
    finally:
        for process in running:
            process.communicate()
    name = f"{PROCESSES} processes"
    yield Comparison(
        "processes",
        f"{name}: private memory of each",
        "",
        Spread.of(private),
        PRIVATE_MB,
        at_least=False,
        unit="MB",
    )
    yield Comparison(
        "processes",
        f"{name}: PSS in all, without one file of {path.stat().st_size / 1e6:,.0f} MB",
        "",
        Spread.of([shared / 1e6]),
        PROCESSES * PRIVATE_MB,
        at_least=False,
        unit="MB",
        took=f"{sum(rates):,.0f} rows/s",
    )


def _cold(path: Path) -> dict[str, list[dict[str, float]]]:
    """Gather rows of which nothing is in memory, with and without a prefetch."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "prefetch": []}
    for _ in range(3):
        for role, results in found.items():
            evict(path)
            results.append(_play(role, path))
    return found


def _compare_cold(
    plain: dict[str, list[dict[str, float]]], paged: dict[str, list[dict[str, float]]]
) -> Iterator[Comparison]:
    def spread(results: list[dict[str, float]], what: str) -> Spread:
        return Spread.of([result[what] for result in results])

    for what, verb in (("read", "read from the disk"), ("resident", "in memory afterwards")):
        yield Comparison(
            "cold",
            f"pages {verb} per row, {COLD_ROWS:,} rows",
            f"layout without pages: {spread(plain['cold'], what).median:.1f}",
            spread(paged["cold"], what),
            PAGES,
            at_least=False,
            unit="pages",
            took=f"{spread(paged['cold'], 'seconds').median * 1e3:,.0f} ms",
        )
    for layout, found in (("paged", paged), ("without pages", plain)):
        took = {role: [result["seconds"] for result in results] for role, results in found.items()}
        yield Comparison(
            "cold",
            f"prefetch and gather of {COLD_ROWS:,} rows, {layout}",
            f"gather ({statistics.median(took['cold']) * 1e3:,.0f} ms)",
            Spread.of_quotients(took["cold"], took["prefetch"]),
            1.0,
            took=f"{statistics.median(took['prefetch']) * 1e3:,.0f} ms",
        )


def _limit(path: Path) -> Comparison:
    evict(path)
    found = _play("evict", path)
    return Comparison(
        "limit",
        "rows with at most half of the file in memory, prefetch and gather of 4,096",
        f"all pages dropped {found['evictions']:.0f} times",
        Spread.of([found["rate"]]),
        1.0,
        unit="/s",
    )


def _open(path: Path, rows: int) -> Comparison:
    write_table(path, rows, 3, sparse=True)
    took: dict[bool, list[float]] = {False: [], True: []}
    for is_cold, milliseconds in took.items():
        for _ in range(21):
            if is_cold:
                evict(path)
            start = perf_counter()
            store = smallfry.open(path)
            milliseconds.append((perf_counter() - start) * 1e3)
            store.close()
    path.unlink()
    return Comparison(
        "open",
        f"open a table of {rows:,} rows",
        f"header not in memory: {statistics.median(took[True]):.2f} ms",
        Spread.of(took[False]),
        OPEN_MS,
        at_least=False,
        unit="ms",
    )


def _ids(rng: np.random.Generator, *shape: int, rows: int = ROWS) -> Prepare:
    """Return a source of random ids."""
    count = max(1, 1_000_000 // int(np.prod(shape)))
    return _batches(rng.integers(0, rows, (min(count, 4096), *shape)))


def _batches(ids: NDArray[np.int64]) -> Prepare:
    """Return a source of the rows of an array, again and again."""
    batches = cycle(ids)
    return lambda: (next(batches),)


def _play(role: str, path: Path) -> dict[str, float]:
    command = module("benchmarks.gather.process", role, str(path))
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    measured: dict[str, float] = json.loads(output)
    return measured


if __name__ == "__main__":
    main()
