"""Servers for benchmarks: started, waited for, measured and stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(command: Sequence[str], *answers: Callable[[], object]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts, which begins when it answers in each of the ways given."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for answer in answers:
            _wait(process, answer)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def python(*arguments: str) -> list[str]:
    """Return a command of this Python."""
    return [sys.executable, *arguments]


def listening(address: tuple[str, int] | str) -> Callable[[], object]:
    """Return a call that succeeds when something listens on a port, or a unix socket."""

    def connect() -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as probe:
            probe.connect(address)

    return connect


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def pss(pid: int) -> int:
    """Return the proportional memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell the memory of process {pid}")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken, all threads, since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait(process: subprocess.Popen[bytes], answer: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            answer()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args!r} does not answer") from None
            time.sleep(0.05)
