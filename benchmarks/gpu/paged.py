"""Gather rows of a paged file to a GPU: from the file, from its registered pages, from device memory."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.device import Gpu, Row
from smallfry import store
from smallfry.nn.device_table import DeviceTable
from smallfry.paging import Paging
from smallfry.sfq import file as sfq
from smallfry.table import Table

DIM, NBIT, STATE_BITS = 160, 3, 8


def paged_gathers(gpu: Gpu, rows: int) -> Iterator[Row]:
    """Gather 160 values at 3 bits into bfloat16, with ids on the CPU and on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paged.sfq"
        sfq.write(path, paged_table(rows))
        with store.open(path) as opened:
            for count in (48, min(1 << 16, gpu.lookups)):
                ids = torch.randint(0, rows, (count,))
                out = torch.empty(count, DIM, dtype=torch.bfloat16, device=gpu.device)
                yield _row("decoded by the CPU, copied", count, _wall(gpu, _copying(opened, ids, out)))
                for memory in ("file", "host", "device"):
                    try:
                        table = DeviceTable(opened, gpu.device, memory)
                    except RuntimeError as error:
                        print(f"memory={memory!r} skipped: {error}")
                        continue
                    for place in ("cpu", gpu.device.type):
                        there = ids.to(place)
                        name = f"{memory}, ids on {place}"
                        yield _row(name, count, _wall(gpu, lambda i=there, t=table, o=out: t.gather(i, o)))


def paged_table(rows: int) -> Table:
    """Return a paged table of random codes, whose scales are 1."""
    rng = np.random.default_rng(0)
    paging = Paging(rows, DIM * NBIT // 8)
    blocks = rng.integers(0, 256, paging.shape, np.uint8)
    paging.records(blocks)[:, :, -2:] = np.frombuffer(np.float16(1).tobytes(), np.uint8)
    codebook = rng.standard_normal(1 << STATE_BITS, np.float32)
    return Table(blocks, DIM, NBIT, "trellis", codebook, float(abs(codebook).max()), paged_rows=rows)


def _copying(opened: store.Store, ids: Tensor, out: Tensor) -> Callable[[], object]:
    host = torch.empty(out.shape, dtype=out.dtype, pin_memory=out.is_cuda)

    def call() -> None:
        opened.gather(ids, out=host)
        out.copy_(host, non_blocking=True)

    return call


def _wall(gpu: Gpu, call: Callable[[], object]) -> float:
    """Return the median seconds until the result of a call is in the memory of the device."""
    times = []
    for _ in range(1 + gpu.rounds):
        started = time.perf_counter()
        call()
        if gpu.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _row(name: str, count: int, seconds: float) -> Row:
    return Row(f"gather of {count} rows, {name}", seconds, "million rows/s", count / seconds / 1e6)
