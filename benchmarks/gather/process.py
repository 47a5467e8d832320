"""A process that gathers random rows of a table in one of several ways, and prints what it took as JSON.

    python -m benchmarks.gather.process cold table.sfq      # rows that are not in memory
    python -m benchmarks.gather.process prefetch table.sfq  # the same after a prefetch of all of them
    python -m benchmarks.gather.process share table.sfq     # all pages; waits for its input to end
    python -m benchmarks.gather.process evict table.sfq     # at most half of the pages in memory

A limit of memory that the kernel enforces needs a control group:

    systemd-run --scope -p MemoryMax=600M python -m benchmarks.gather.process share table.sfq
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

import smallfry
from smallfry.pages import drop_pages
from smallfry.store import Store

ROWS = 10_000
BATCH = 4096
SECONDS = 10.0


def main() -> None:
    """Play one role."""
    role, path = sys.argv[1], Path(sys.argv[2])
    store = smallfry.open(path)
    result = {"cold": _cold, "prefetch": _prefetch, "share": _share, "evict": _evict}[role](store)
    print(json.dumps(result), flush=True)
    if role == "share":
        sys.stdin.read()
    store.close()


def evict(path: Path) -> None:
    """Drop the pages of a file that no process maps."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cold(store: Store, prefetch: bool = False) -> dict[str, float]:
    rng = np.random.default_rng()
    out = np.empty((ROWS, store.dim), np.float32)
    store.gather(rng.integers(0, len(store), 1), out=out[:1])  # what the first call alone reads
    ids = rng.integers(0, len(store), ROWS)
    resident, read, start = store.residency().resident, _read_bytes(), perf_counter()
    if prefetch:
        store.prefetch(ids)
    store.gather(ids, out=out, threads=1)
    seconds = perf_counter() - start
    return {
        "seconds": seconds,
        "resident": (store.residency().resident - resident) / os.sysconf("SC_PAGESIZE") / ROWS,
        "read": (_read_bytes() - read) / os.sysconf("SC_PAGESIZE") / ROWS,
    }


def _prefetch(store: Store) -> dict[str, float]:
    return _cold(store, prefetch=True)


def _share(store: Store) -> dict[str, float]:
    rng = np.random.default_rng()
    out = np.empty((BATCH, store.dim), np.float32)
    pages = -(-store.residency().total // os.sysconf("SC_PAGESIZE"))
    rows, start = 0, perf_counter()
    while rows < 8 * pages:  # all but one page in 3,000
        store.gather(rng.integers(0, len(store), BATCH), out=out, threads=1)
        rows += BATCH
    return {"rate": rows / (perf_counter() - start)}


def _evict(store: Store) -> dict[str, float]:
    rng = np.random.default_rng()
    out = np.empty((BATCH, store.dim), np.float32)
    rows, spent, evictions = 0, 0.0, 0
    end = perf_counter() + SECONDS
    while perf_counter() < end:
        ids = rng.integers(0, len(store), BATCH)
        start = perf_counter()
        store.prefetch(ids)
        store.gather(ids, out=out, threads=1)
        spent += perf_counter() - start
        rows += BATCH
        found = store.residency(1 << 14)
        if found.resident + BATCH * os.sysconf("SC_PAGESIZE") > found.total // 2:
            drop_pages(store.table.codes)
            evict(store.path)
            evictions += 1
    return {"rate": rows / spent, "evictions": evictions}


def _read_bytes() -> int:
    """Return the bytes that this process has read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


if __name__ == "__main__":
    main()
