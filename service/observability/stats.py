"""What the server holds and has done, measured for all of its processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

import smallfry
from service.gpu.placement import DeviceManager
from service.models.registry import Models
from service.observability.metrics import Sample, counts
from service.scoreboard import Scoreboard

_MEMORY = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}


class ProcessMemory(BaseModel):
    """Memory of one process, in bytes."""

    pid: int
    rss: int = Field(description="Resident set size; shared pages count in each process.")
    pss: int = Field(description="Proportional set size; each shared page is divided by its number of users.")
    private: int = Field(description="Resident pages that no other process shares.")


class Memory(BaseModel):
    """Memory of the whole server, in bytes: sums over its processes."""

    rss: int
    pss: int
    private: int
    gpu: int = Field(description="Tables on GPUs.")
    processes: list[ProcessMemory]


class ModelBytes(BaseModel):
    """Size of one model, and of the float32 matrix and dict that it replaces."""

    name: str
    rows: int
    dim: int
    nbit: int
    device: str = Field(description="Device of the model in the worker that responds: cpu, or a GPU.")
    bytes: dict[str, int]
    float32_bytes: int = Field(description="The same rows as a float32 matrix.")
    dict_bytes: int = Field(description="The same tokens as a Python dict of rows, estimated.")


class Stats(BaseModel):
    """The state of the whole server, whichever worker responds."""

    version: str
    workers: int
    worker_restarts: int
    uptime_seconds: float
    memory: Memory
    models: list[ModelBytes]
    requests: dict[str, int] = Field(description="Requests by response status.")
    in_flight: int
    tokens: dict[str, int] = Field(description="Tokens and ids looked up: found and unknown.")
    rejected: dict[str, int] = Field(description="Requests rejected, by reason.")


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


class Report(NamedTuple):
    """What ``GET /stats`` answers, and the counters behind ``GET /metrics``."""

    stats: Stats
    totals: NDArray[np.uint64]


def read(models: Models, devices: DeviceManager, scoreboard: Scoreboard, uptime: float) -> Report:
    """Measure one server, all of its workers."""
    models.refresh()
    totals = scoreboard.totals()
    stats = Stats(
        version=smallfry.__version__,
        workers=scoreboard.workers,
        worker_restarts=scoreboard.restarts,
        uptime_seconds=uptime,
        memory=memory(scoreboard.pids(), counts(totals, "smallfry_device_bytes").get("", 0)),
        models=[
            ModelBytes(name=model.name, device=devices.device_of(model), **model.store.describe_size())
            for model in models.values()
        ],
        requests=counts(totals, "smallfry_requests_total"),
        in_flight=counts(totals, "smallfry_in_flight_requests").get("", 0),
        tokens=counts(totals, "smallfry_tokens_total"),
        rejected=counts(totals, "smallfry_rejected_total"),
    )
    return Report(stats, totals)


def gather(reports: Sequence[Report]) -> Report:
    """Add up the reports of servers that answer as one; of a model that several have, one is shown."""
    each = [report.stats for report in reports]
    models = {model.name: model for stats in each for model in stats.models}
    totals: NDArray[np.uint64] = np.stack([report.totals for report in reports]).sum(axis=0)
    stats = Stats(
        version=smallfry.__version__,
        workers=sum(stats.workers for stats in each),
        worker_restarts=sum(stats.worker_restarts for stats in each),
        uptime_seconds=max(stats.uptime_seconds for stats in each),
        memory=Memory(
            rss=sum(stats.memory.rss for stats in each),
            pss=sum(stats.memory.pss for stats in each),
            private=sum(stats.memory.private for stats in each),
            gpu=sum(stats.memory.gpu for stats in each),
            processes=[process for stats in each for process in stats.memory.processes],
        ),
        models=[models[name] for name in sorted(models)],
        requests=counts(totals, "smallfry_requests_total"),
        in_flight=counts(totals, "smallfry_in_flight_requests").get("", 0),
        tokens=counts(totals, "smallfry_tokens_total"),
        rejected=counts(totals, "smallfry_rejected_total"),
    )
    return Report(stats, totals)


def samples(models: Models, now: Stats) -> dict[str, list[Sample]]:
    """Return the metrics that are measured when they are asked for, given what `read` returned."""
    used = now.memory
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
        "smallfry_workers": [((), now.workers)],
        "smallfry_worker_restarts_total": [((), now.worker_restarts)],
        "smallfry_uptime_seconds": [((), now.uptime_seconds)],
        "smallfry_build_info": [((smallfry.__version__,), 1)],
    }
