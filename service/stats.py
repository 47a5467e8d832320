"""What the server holds in memory, read from the kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.models import Model
from service.schema import Memory, ModelBytes, ProcessMemory

_FIELDS = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}


def memory(pids: Iterable[int]) -> Memory:
    """Measure the processes of the server; one that has ended meanwhile is left out."""
    processes = [usage for pid in pids if (usage := process_memory(pid)) is not None]
    return Memory(
        rss=sum(process.rss for process in processes),
        pss=sum(process.pss for process in processes),
        private=sum(process.private for process in processes),
        gpu=0,
        processes=processes,
    )


def process_memory(pid: int) -> ProcessMemory | None:
    """Read one process's resident, proportional and private bytes from ``smaps_rollup``."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    sizes = {"rss": 0, "pss": 0, "private": 0}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in _FIELDS:
            sizes[_FIELDS[name]] += int(value.split()[0]) * 1024
    return ProcessMemory(pid=pid, **sizes)


def model_bytes(model: Model) -> ModelBytes:
    """Compare a model's bytes with a float32 matrix and a dict."""
    store = model.store
    parts: Mapping[str, int] = store.nbytes
    rows = store.table.rows
    return ModelBytes(
        name=model.name,
        rows=rows,
        dim=store.dim,
        nbit=store.nbit,
        bytes=dict(parts),
        float32_bytes=4 * rows * store.dim,
        dict_bytes=0 if store.vocabulary is None else dict_bytes(rows, parts["tokens"]),
    )


def dict_bytes(rows: int, token_bytes: int) -> int:
    """Estimate what CPython needs for a dict of `rows` strings to their row numbers.

    The dict's slots hold an index (4 bytes up to 2**32 entries) and, for two thirds of them, key and value;
    each key is a string object and each value past the small ones an int object.
    """
    slots = 8
    while slots * 2 // 3 < rows:
        slots *= 2
    index = 1 if slots <= 1 << 7 else 2 if slots <= 1 << 15 else 4
    table = sys.getsizeof({}) + slots * index + slots * 2 // 3 * 16
    return table + rows * sys.getsizeof("") + token_bytes + max(rows - 257, 0) * sys.getsizeof(1 << 20)
