"""What the server holds and has done, measured for all of its processes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import smallfry
from service.board import Board
from service.metrics import Sample, counts
from service.models import Model, Models
from service.placement import CPU, Placement
from service.schema import Memory, ModelBytes, ProcessMemory, Stats

_MEMORY = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}


def memory(pids: Iterable[int], gpu: int) -> Memory:
    """Measure the processes of the server; one that has ended meanwhile is left out."""
    processes = [usage for pid in pids if (usage := process_memory(pid)) is not None]
    return Memory(
        rss=sum(process.rss for process in processes),
        pss=sum(process.pss for process in processes),
        private=sum(process.private for process in processes),
        gpu=gpu,
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
        if name in _MEMORY:
            sizes[_MEMORY[name]] += int(value.split()[0]) * 1024
    return ProcessMemory(pid=pid, **sizes)


def model_bytes(model: Model, device: str = CPU) -> ModelBytes:
    """Compare a model's bytes with a float32 matrix and a dict."""
    store = model.store
    return ModelBytes(
        name=model.name,
        rows=len(store),
        dim=store.dim,
        nbit=store.nbit,
        device=device,
        bytes=store.nbytes,
        float32_bytes=store.baseline_nbytes["float32"],
        dict_bytes=store.baseline_nbytes["dict"],
    )


def read(models: Models, placement: Placement, board: Board, uptime: float) -> Stats:
    """Return what ``GET /stats`` answers."""
    totals = board.totals()
    return Stats(
        version=smallfry.__version__,
        workers=board.workers,
        worker_restarts=board.restarts,
        uptime_seconds=uptime,
        memory=memory(board.pids(), counts(totals, "smallfry_device_bytes").get("", 0)),
        models=[model_bytes(model, placement.where(model)) for model in models.values()],
        requests=counts(totals, "smallfry_requests_total"),
        in_flight=counts(totals, "smallfry_in_flight_requests").get("", 0),
        tokens=counts(totals, "smallfry_tokens_total"),
        rejected=counts(totals, "smallfry_rejected_total"),
    )


def samples(models: Models, board: Board, uptime: float) -> dict[str, list[Sample]]:
    """Return the metrics that are measured when they are asked for."""
    used = memory(board.pids(), 0)
    served = list(models.values())
    return {
        "smallfry_store_bytes": [
            ((model.name, part), size)
            for model in served
            for part, size in model.store.nbytes.items()
            if part != "total"
        ],
        "smallfry_store_rows": [((model.name,), len(model.store)) for model in served],
        "smallfry_model_info": [
            ((model.name, model.digest, str(model.store.dim), str(model.store.nbit)), 1) for model in served
        ],
        "smallfry_memory_bytes": [(("rss",), used.rss), (("pss",), used.pss), (("private",), used.private)],
        "smallfry_workers": [((), board.workers)],
        "smallfry_worker_restarts_total": [((), board.restarts)],
        "smallfry_uptime_seconds": [((), uptime)],
        "smallfry_build_info": [((smallfry.__version__,), 1)],
    }
