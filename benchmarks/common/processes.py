"""Server processes: started, waited for, measured and stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the project, from which modules are started."""


@contextmanager
def running(
    command: Sequence[str], *probes: Callable[[], object], stderr: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the duration of the block, which begins once all probes succeed.

    A probe fails by raising OSError. Without `stderr`, the server writes to that of this process.
    """
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        for probe in probes:
            _wait(process, probe)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python, from `ROOT`."""
    return [sys.executable, "-m", name, *arguments]


def server(embeddings: Path, *options: str) -> list[str]:
    """Return the command of a server that logs warnings and stops without a drain delay."""
    quiet = ("--log-level", "warning", "--drain-delay", "0")
    return module("service", "--embeddings", str(embeddings), *quiet, *options)


def listening(address: int | str) -> Callable[[], object]:
    """Return a probe that succeeds when something listens on a local port or a unix socket."""

    def connect() -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as probe:
            probe.connect(address if isinstance(address, str) else ("127.0.0.1", address))

    return connect


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """Return the running processes that a process has started, oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pss(pid: int) -> int:
    """Return the proportional memory (PSS) of a process in bytes."""
    return _memory(pid, "Pss:")


def private_bytes(pid: int) -> int:
    """Return the memory in bytes that a process shares with no other."""
    return _memory(pid, "Private_")


def unshared_bytes(pid: int) -> int:
    """Return the memory in bytes that is no shared file, with the pages that a forked process shares."""
    return _memory(pid, "Anonymous:") + _memory(pid, "Private_Clean:")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of the running threads of a process since their start."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _memory(pid: int, prefix: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(prefix))


def _wait(process: subprocess.Popen[bytes], probe: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            probe()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args!r} does not respond") from None
            time.sleep(0.05)
