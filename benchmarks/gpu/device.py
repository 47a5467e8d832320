"""The card that a benchmark runs on: its clock, tables on it, and what is written down of each time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smallfry.nn.packed import Packed

WRITTEN_FIRST = 1 << 30
"""Bytes that the device writes before each call that is timed: some 0.3 ms of a fast card."""


@dataclass(frozen=True)
class Row:
    """One line of the result: a time, what it is measured against, and what was aimed at."""

    what: str
    seconds: float | None
    against: str = ""
    factor: float | None = None
    target: float | None = None

    def __str__(self) -> str:
        took = " " * 13 if self.seconds is None else f"{self.seconds * 1e3:10.3f} ms"
        factor = "" if self.factor is None else f"{self.factor:8.2f} x {self.against}"
        if self.target is None or self.factor is None:
            return f"{self.what:52}{took}  {factor}"
        verdict = "ok" if self.factor >= self.target else "MISSED"
        return f"{self.what:52}{took}  {factor} (aimed at {self.target:g}: {verdict})"


@dataclass(frozen=True)
class Card:
    """Where the kernels run, and how large the problems are."""

    device: torch.device
    lookups: int
    sizes: tuple[tuple[int, int], ...]
    """Rows and dimensions of the tables."""
    rounds: int

    def time(self, call: Callable[[], object]) -> float:
        """Return the median seconds of a call, on the device's own clock.

        The device writes a lot first. So it is busy until the host has launched the call, whose time would be
        the host's otherwise, and its cache holds nothing of the call before.
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
            torch.empty(WRITTEN_FIRST, dtype=torch.uint8, device=self.device).zero_()
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(times)

    def table(self, rows: int, dim: int, nbit: int, dtype: torch.dtype = torch.float32) -> Packed:
        """Return a table of random codes under evenly spaced levels."""
        if nbit == 32:
            return Packed(
                torch.randn(rows, dim, device=self.device).to(dtype), None, None, None, None, dim, nbit
            )
        codes = torch.randint(0, 256, (rows, -(-dim * nbit // 8)), dtype=torch.uint8, device=self.device)
        levels = (torch.arange(2**nbit, device=self.device) - (2**nbit - 1) / 2) * 0.25
        return Packed(codes, levels.to(dtype), None, None, None, dim, nbit)

    def ids(self, rows: int, count: int) -> Tensor:
        """Return random row numbers."""
        return torch.randint(0, rows, (count,), device=self.device)
