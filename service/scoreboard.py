"""Memory shared by the processes of a server: counters, and the list of models."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_GENERATION = 0
_RESTARTS = 1
_PARENT = 2
_PIDS = 3


class Scoreboard:
    """Memory that forked processes inherit: a block of counters for each process, and the list of models.

    The last block belongs to the supervisor. Every counter has one writer, so increments take no lock;
    readers sum the blocks. A restarted worker continues the counters of its predecessor. The list of models
    is written under a lock, and its generation costs a request one comparison.
    """

    def __init__(self, workers: int, counters: int) -> None:
        self.workers = workers
        self._first = _PIDS + workers
        self._counters = counters
        self._end = 8 * (self._first + (workers + 1) * counters)
        self._descriptor = _anonymous_file()
        os.ftruncate(self._descriptor, self._end)
        self._words = memoryview(mmap.mmap(self._descriptor, self._end)).cast("Q")
        self._words[_PARENT] = os.getpid()

    def block(self, worker: int) -> memoryview:
        """Return the counters of a worker, or of the supervisor at index `workers`."""
        start = self._first + worker * self._counters
        return self._words[start : start + self._counters]

    def totals(self) -> NDArray[np.uint64]:
        """Return the counters, summed over the processes."""
        blocks = np.frombuffer(self._words[self._first :], np.uint64).reshape(self.workers + 1, -1)
        totals: NDArray[np.uint64] = blocks.sum(axis=0)
        return totals

    def register(self, worker: int) -> None:
        """Register this process as the worker."""
        self._words[_PIDS + worker] = os.getpid()

    def pids(self) -> list[int]:
        """Return the process ids of the server, the supervisor first."""
        return list(dict.fromkeys(pid for pid in self._words[_PARENT : self._first] if pid))

    def count_restart(self) -> None:
        """Count a restarted worker; called only by the supervisor."""
        self._words[_RESTARTS] += 1

    @property
    def restarts(self) -> int:
        """Number of worker restarts."""
        return self._words[_RESTARTS]

    @property
    def generation(self) -> int:
        """Number of writes to the list of models."""
        return self._words[_GENERATION]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the list of models against other processes, but not other threads."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Read the list of models, path and digest by name, and why files cannot be served, by path."""
        length = int.from_bytes(os.pread(self._descriptor, 8, self._end), "little")
        models, failed = json.loads(os.pread(self._descriptor, length, self._end + 8) or b"[{}, {}]")
        return models, failed

    def write(self, models: dict[str, list[str]], failed: dict[str, str]) -> None:
        """Replace the list of models; requires the lock."""
        # Paths may hold lone surrogates, which orjson rejects.
        text = json.dumps([models, failed]).encode("ascii")
        os.pwrite(self._descriptor, len(text).to_bytes(8, "little") + text, self._end)
        self._words[_GENERATION] += 1


def _anonymous_file() -> int:
    """Return the descriptor of an unnamed file, in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("smallfry")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
