"""The GPU under test: timing, random tables, and one row of the results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smallfry.nn.packed import Packed

FLUSH_BYTES = 1 << 30
"""Bytes written before each timed call, about 0.3 ms on a fast GPU."""


@dataclass(frozen=True)
class Row:
    """One row of the results: a time, its ratio to a baseline, and the target for that ratio."""

    name: str
    seconds: float | None
    baseline: str = ""
    ratio: float | None = None
    target: float | None = None

    def __str__(self) -> str:
        time = " " * 13 if self.seconds is None else f"{self.seconds * 1e3:10.3f} ms"
        ratio = "" if self.ratio is None else f"{self.ratio:8.2f} x {self.baseline}"
        if self.target is None or self.ratio is None:
            return f"{self.name:52}{time}  {ratio}"
        verdict = "ok" if self.ratio >= self.target else "MISSED"
        return f"{self.name:52}{time}  {ratio} (target {self.target:g}: {verdict})"


@dataclass(frozen=True)
class Gpu:
    """Device and problem sizes; with ``--smoke`` the device is the CPU."""

    device: torch.device
    lookups: int
    sizes: tuple[tuple[int, int], ...]
    """Rows and dimensions of each table."""
    rounds: int

    def time(self, call: Callable[[], object]) -> float:
        """Return the median seconds of a call, from CUDA events.

        A large write precedes each call: it hides the launch overhead on the host and flushes the L2 cache.
        """
        call()
        times = []
        for _ in range(self.rounds):
            if self.device.type == "cpu":
                started = time.perf_counter()
                call()
                times.append(time.perf_counter() - started)
                continue
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device).zero_()
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(times)

    def table(
        self, rows: int, dim: int, nbit: int, dtype: torch.dtype = torch.float32, window: int | None = None
    ) -> Packed:
        """Return a table of random codes and even levels; trellis codes if `window` exceeds `nbit`."""
        if nbit == 32:
            values = torch.randn(rows, dim, device=self.device).to(dtype)
            return Packed(values, None, None, None, None, None, dim, nbit)
        size = 2 ** (window or nbit)
        codes = torch.randint(0, 256, (rows, -(-dim * nbit // 8)), dtype=torch.uint8, device=self.device)
        levels = (torch.arange(size, device=self.device) - (size - 1) / 2) * 0.25
        return Packed(codes, levels.to(dtype), None, None, None, None, dim, nbit)

    def ids(self, rows: int, count: int) -> Tensor:
        """Return random row ids."""
        return torch.randint(0, rows, (count,), device=self.device)


def named_bits(nbit: int, window: int) -> str:
    """Return the name of a bit width, with the bits that a value depends on if they are more."""
    return f"{nbit} bits" if window == nbit else f"{nbit} bits, trellis of {window}"
