"""Statistics of the whole server, all processes: models, memory and counters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

import smallfry
from service.gpu.placement import DeviceManager
from service.models.model import Model
from service.models.registry import Models
from service.observability.metrics import Sample, counts
from service.scoreboard import Scoreboard

#: Pages of a model that are examined for its residency: about 2 ms for a file of any size.
_RESIDENCY_SAMPLE = 1 << 15

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
    resident_bytes: int | None = Field(
        description="Bytes of the file in memory, whichever process read them; an estimate above 128 MiB. "
        "null if the system does not tell, because the server neither owns nor may write the file."
    )
    float32_bytes: int = Field(description="The same rows as a float32 matrix.")
    dict_bytes: int = Field(description="The same tokens as a Python dict of rows, estimated.")


class FailedFile(BaseModel):
    """A file or folder that was to be served and cannot be."""

    file: str = Field(description="Its name, without folders.")
    message: str
    model: str | None = Field(description="The model that still serves an earlier version of the file.")


class Stats(BaseModel):
    """The state of the whole server, whichever worker responds."""

    version: str
    workers: int
    worker_restarts: int
    uptime_seconds: float
    memory: Memory
    models: list[ModelBytes]
    failed: list[FailedFile]
    requests: dict[str, int] = Field(description="Requests by response status.")
    in_flight: int
    tokens: dict[str, int] = Field(description="Tokens and ids looked up: found and unknown.")
    rejected: dict[str, int] = Field(description="Requests rejected, by reason.")


class Report(NamedTuple):
    """The body of ``GET /stats``, and the counters for ``GET /metrics``."""

    stats: Stats
    totals: NDArray[np.uint64]


def read(models: Models, devices: DeviceManager, scoreboard: Scoreboard, uptime: float) -> Report:
    """Measure one server, all of its workers."""
    models.refresh()
    totals = scoreboard.totals()
    sizes = [
        ModelBytes(
            name=model.name,
            device=devices.device_of(model),
            resident_bytes=_resident_bytes(model),
            **model.store.describe_size(),
        )
        for model in models.values()
    ]
    processes = [usage for pid in scoreboard.pids() if (usage := process_memory(pid)) is not None]
    return _report(
        totals, scoreboard.workers, scoreboard.restarts, uptime, sizes, failed_files(models), processes
    )


def gather(reports: Sequence[Report]) -> Report:
    """Sum the reports of servers behind one address; models with the same name are listed once."""
    totals: NDArray[np.uint64] = np.stack([report.totals for report in reports]).sum(axis=0)
    stats = [report.stats for report in reports]
    models = {model.name: model for each in stats for model in each.models}
    failed = {(file.file, file.message, file.model): file for each in stats for file in each.failed}
    return _report(
        totals,
        sum(each.workers for each in stats),
        sum(each.worker_restarts for each in stats),
        max(each.uptime_seconds for each in stats),
        [models[name] for name in sorted(models)],
        list(failed.values()),
        [process for each in stats for process in each.memory.processes],
    )


def failed_files(models: Models) -> list[FailedFile]:
    """Return the files that cannot be served."""
    served = {str(model.path): model.name for model in models.values()}
    return [
        FailedFile(file=_text(file.rpartition("/")[2]), message=_text(message), model=served.get(file))
        for file, message in models.failed.items()
    ]


def process_memory(pid: int) -> ProcessMemory | None:
    """Read the memory of a process from ``smaps_rollup``; None if it has ended."""
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


def samples(models: Models, now: Stats) -> dict[str, list[Sample]]:
    """Return the metrics that are measured per scrape, given the stats from `read`."""
    used = now.memory
    served = list(models.values())
    return {
        "smallfry_store_bytes": [
            ((model.name, part), size)
            for model in served
            for part, size in model.store.nbytes.items()
            if part != "total"
        ],
        "smallfry_store_resident_bytes": [
            ((model.name,), model.resident_bytes) for model in now.models if model.resident_bytes is not None
        ],
        "smallfry_store_rows": [((model.name,), len(model.store)) for model in served],
        "smallfry_model_info": [
            ((model.name, model.digest, str(model.store.dim), str(model.store.nbit)), 1) for model in served
        ],
        "smallfry_failed_files": [((), len(now.failed))],
        "smallfry_memory_bytes": [(("rss",), used.rss), (("pss",), used.pss), (("private",), used.private)],
        "smallfry_workers": [((), now.workers)],
        "smallfry_worker_restarts_total": [((), now.worker_restarts)],
        "smallfry_uptime_seconds": [((), now.uptime_seconds)],
        "smallfry_build_info": [((smallfry.__version__,), 1)],
    }


def _report(
    totals: NDArray[np.uint64],
    workers: int,
    restarts: int,
    uptime: float,
    models: list[ModelBytes],
    failed: list[FailedFile],
    processes: list[ProcessMemory],
) -> Report:
    stats = Stats(
        version=smallfry.__version__,
        workers=workers,
        worker_restarts=restarts,
        uptime_seconds=uptime,
        memory=Memory(
            rss=sum(process.rss for process in processes),
            pss=sum(process.pss for process in processes),
            private=sum(process.private for process in processes),
            gpu=counts(totals, "smallfry_device_bytes").get("", 0),
            processes=processes,
        ),
        models=models,
        failed=failed,
        requests=counts(totals, "smallfry_requests_total"),
        in_flight=counts(totals, "smallfry_in_flight_requests").get("", 0),
        tokens=counts(totals, "smallfry_tokens_total"),
        rejected=counts(totals, "smallfry_rejected_total"),
    )
    return Report(stats, totals)


def _resident_bytes(model: Model) -> int | None:
    try:
        return model.store.residency(_RESIDENCY_SAMPLE).resident
    except OSError:
        return None


def _text(text: str) -> str:
    """Return text without lone surrogates, which file names may hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
