"""Tokens to rows and to vectors, against a dict, marisa-trie, and a dict with a float32 matrix."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import marisa_trie
import numpy as np

import smallfry
from benchmarks.common.comparison import Comparison, Spread, speedup
from benchmarks.common.timing import Timing, take_turns
from benchmarks.library.workload import Workload

GROUP = "tokens"
SIZES = (1_000, 50_000)
LOOKUP = 1_000
DICT_TARGET, TRIE_TARGET, LOOKUP_TARGET = 2.0, 5.0, 2.0

Find = Callable[[list[str]], object]


def compare_tokens(workload: Workload) -> Iterator[Comparison]:
    """Find the rows, then the vectors, of tokens drawn by frequency."""
    with smallfry.open(workload.file) as store:
        rows = {token: row for row, token in enumerate(workload.tokens)}
        trie = marisa_trie.Trie(workload.tokens)
        sides: dict[str, Find] = {
            "smallfry": store.find,
            "dict": lambda batch, get=rows.get: [get(token) for token in batch],
            "marisa-trie": lambda batch, get=trie.get: [get(token) for token in batch],
        }
        for size in SIZES:
            timings = take_turns(sides, workload.rounds, workload.seconds, workload.batches(size))
            ours = timings["smallfry"]
            for peer, target in (("dict", DICT_TARGET), ("marisa-trie", TRIE_TARGET)):
                yield Comparison(
                    GROUP,
                    f"token → row, {size:,} at a time",
                    f"{peer} ({_nanoseconds(timings[peer], size)})",
                    speedup(ours, timings[peer]),
                    target,
                    took=_nanoseconds(ours, size),
                    label=f"token → row, {size:,} at a time | {peer}",
                )
        yield _next_to_a_thread(workload, sides)
        yield _vectors(workload, store, rows)


def _vectors(workload: Workload, store: smallfry.Store, rows: dict[str, int]) -> Comparison:
    matrix = workload.weight.numpy()
    get = rows.get
    sides: dict[str, Find] = {
        "smallfry": store.lookup,
        "float32": lambda batch: matrix[[get(token) for token in batch]],
    }
    timings = take_turns(sides, workload.rounds, workload.seconds, workload.batches(LOOKUP))
    return Comparison(
        GROUP,
        f"Store.lookup, {LOOKUP:,} tokens, 2 bits",
        "dict and a float32 NumPy matrix",
        speedup(timings["smallfry"], timings["float32"]),
        LOOKUP_TARGET,
        took=f"{timings['smallfry'].p50_ms * 1e3:.0f} µs",
        label=f"tokens → vectors, {LOOKUP:,} at a time | dict and float32 matrix",
    )


def _next_to_a_thread(workload: Workload, sides: dict[str, Find]) -> Comparison:
    """Compare how far another Python thread, which needs the GIL for each step, counts during lookups."""
    batch = workload.batches(max(SIZES))()[0]
    counts: dict[str, list[float]] = {name: [] for name in ("smallfry", "dict")}
    for _ in range(workload.rounds):
        for name, of_side in counts.items():
            of_side.append(_count_during(sides[name], batch, workload.seconds))
    return Comparison(
        GROUP,
        "steps of another thread while tokens are found",
        "while a dict finds them",
        Spread.of_quotients(counts["smallfry"], counts["dict"]),
        1.0,
        took=f"{np.median(counts['smallfry']) / 1e6:.1f} M steps/s",
    )


def _count_during(find: Find, batch: list[str], seconds: float) -> float:
    stop = threading.Event()
    steps = 0

    def count() -> None:
        nonlocal steps
        while not stop.is_set():
            steps += 1

    thread = threading.Thread(target=count)
    start = time.perf_counter()
    thread.start()
    while time.perf_counter() < start + seconds:
        find(batch)
    took = time.perf_counter() - start
    stop.set()
    thread.join()
    return steps / took


def _nanoseconds(timing: Timing, size: int) -> str:
    return f"{timing.p50_ms * 1e6 / size:.0f} ns/token"
