"""What the server holds in memory, read from the kernel."""

from __future__ import annotations

from collections.abc import Iterable
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
    return ModelBytes(
        name=model.name,
        rows=len(store),
        dim=store.dim,
        nbit=store.nbit,
        bytes=store.nbytes,
        float32_bytes=store.baseline_nbytes["float32"],
        dict_bytes=store.baseline_nbytes["dict"],
    )
