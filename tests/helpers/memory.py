"""The most memory that a process takes while something runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Growth:
    """Bytes by which the resident memory of a process grew at most; pages of mapped files count."""

    peak: int = 0


@contextmanager
def growing(pid: int | None = None) -> Iterator[Growth]:
    """Measure the growth of a process, by default this one, from the beginning to its peak."""
    process = Path(f"/proc/{pid or os.getpid()}")
    (process / "clear_refs").write_text("5")  # resets the peak
    before, growth = _kilobytes(process, "VmRSS"), Growth()
    yield growth
    growth.peak = 1024 * (_kilobytes(process, "VmHWM") - before)


def _kilobytes(process: Path, name: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
