"""The server with and without a GPU: latency over HTTP, and the break-even batch of ``--device auto``."""

from __future__ import annotations

import http.client
import json
import math
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.processes import listening, running, server
from benchmarks.gpu.device import Gpu, Row
from service.gpu.calibration import measure
from service.gpu.device import Device
from smallfry.sfq import file as sfq
from smallfry.table import Table

SIZES = (64, 1024, 16384)
BAG = 20


def break_even(gpu: Gpu, rows: int) -> Iterator[Row]:
    """Find the batch size from which ``--device auto`` uses the GPU, with the server's own calibration."""
    with ThreadPoolExecutor(1) as waiter:
        for nbit in (2, 8):
            table = _host_table(rows, gpu.sizes[0][1], nbit)
            found = measure(table, Device(gpu.device).load(table), waiter, SIZES[-1])
            for kind, least in zip(("rows", "sums"), found, strict=True):
                where = "never" if math.isinf(least) else f"from {least:g} ids"
                yield Row(f"break-even of {kind}, {nbit} bits: {where}", None)


def latencies(gpu: Gpu, rows: int) -> Iterator[Row]:
    """Time requests for rows and for sums at each ``--device``, end to end over HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.sfq"
        sfq.write(path, _host_table(rows, gpu.sizes[0][1], 2), None)
        ids = np.random.default_rng(0).integers(0, rows, SIZES[-1])
        took: dict[str, list[float]] = {}
        for device in ("cpu", "cuda", "auto"):
            # A Unix socket: a free port may be taken before the server listens.
            address = str(Path(folder) / device)
            with running(server(path, "--uds", address, "--device", device), listening(address)):
                _wait_for_device(address, device)
                took[device] = [
                    _latency(address, ids[:count], pool, gpu.rounds)
                    for count in SIZES
                    for pool in (False, True)
                ]
        for device, times in took.items():
            for position, seconds in enumerate(times):
                kind = "sums of 20" if position % 2 else "rows"
                name = f"server --device {device}, {SIZES[position // 2]} ids, {kind}"
                yield Row(name, seconds, "--device cpu", took["cpu"][position] / seconds)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._address)


def _wait_for_device(address: str, device: str) -> None:
    """Wait until the server has moved its table to the device."""
    end = time.monotonic() + 60
    while device != "cpu" and torch.cuda.is_available() and time.monotonic() < end:
        connection = _Connection(address)
        connection.request("GET", "/stats")
        on_gpu = json.loads(connection.getresponse().read())["models"][0]["device"] != "cpu"
        connection.close()
        if on_gpu:
            return
        # `auto` may keep the table on the CPU; then the CPU is measured.
        time.sleep(1)
        end = min(end, time.monotonic() + (20 if device == "auto" else 60))


def _latency(address: str, ids: NDArray[np.int64], pool: bool, rounds: int) -> float:
    rows = ids.tolist()
    if pool:
        bags = [rows[start : start + BAG] for start in range(0, len(rows), BAG)]
        body = json.dumps({"ids": bags, "pool": "sum"})
    else:
        body = json.dumps({"ids": rows})
    headers = {"content-type": "application/json", "accept": "application/octet-stream"}
    connection = _Connection(address)
    times = []
    for _ in range(max(3, rounds)):
        started = time.perf_counter()
        connection.request("POST", "/lookup", body, headers)
        response = connection.getresponse()
        response.read()
        times.append(time.perf_counter() - started)
        if response.status != http.client.OK:
            raise RuntimeError(f"the server responded with status {response.status}")
    connection.close()
    return statistics.median(times)


def _host_table(rows: int, dim: int, nbit: int) -> Table:
    codes = np.random.default_rng(0).integers(0, 256, (rows, -(-dim * nbit // 8)), np.uint8)
    levels = ((np.arange(2**nbit) - (2**nbit - 1) / 2) * 0.25).astype(np.float32)
    return Table(codes, dim, nbit, "exact", levels, clip=float(levels[-1]))
