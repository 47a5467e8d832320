"""Memory that the processes of one server share: counters, and which models are loaded."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import orjson
from numpy.typing import NDArray

_GENERATION = 0
_RESTARTS = 1
_PARENT = 2
_PIDS = 3


class Scoreboard:
    """A map that forked processes inherit: a block of counters for each process, and a list of models.

    The last block is that of the workers' parent. Every counter has one writer, so that no increment takes a
    lock; readers add the blocks up. A worker that dies leaves its counts to its successor. The list of models
    is written under a lock and has a generation, which costs a request one comparison.

    Parameters
    ----------
    workers : int
        Processes that answer.
    counters : int
        Unsigned 64-bit counters in a block.
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
        """Return the counters of a worker, or of the parent as the one after the last: words to add to."""
        start = self._first + worker * self._counters
        return self._words[start : start + self._counters]

    def totals(self) -> NDArray[np.uint64]:
        """Return each counter's sum over the processes."""
        blocks = np.frombuffer(self._words[self._first :], np.uint64).reshape(self.workers + 1, -1)
        totals: NDArray[np.uint64] = blocks.sum(axis=0)
        return totals

    def enter(self, worker: int) -> None:
        """Note that this process is the worker now."""
        self._words[_PIDS + worker] = os.getpid()

    def pids(self) -> list[int]:
        """Return the server's processes, the parent first."""
        return list(dict.fromkeys(pid for pid in self._words[_PARENT : self._first] if pid))

    def count_restart(self) -> None:
        """Count a worker that was started again; called by the parent alone."""
        self._words[_RESTARTS] += 1

    @property
    def restarts(self) -> int:
        """How often a worker was started again."""
        return self._words[_RESTARTS]

    @property
    def generation(self) -> int:
        """How often the list of models was written."""
        return self._words[_GENERATION]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing the list of models; not for threads of one process."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> dict[str, list[str]]:
        """Return the list of models: path and digest by name."""
        length = int.from_bytes(os.pread(self._descriptor, 8, self._end), "little")
        models: dict[str, list[str]] = orjson.loads(
            os.pread(self._descriptor, length, self._end + 8) or b"{}"
        )
        return models

    def write(self, models: dict[str, list[str]]) -> None:
        """Replace the list of models; the lock has to be held."""
        text = orjson.dumps(models)
        os.pwrite(self._descriptor, len(text).to_bytes(8, "little") + text, self._end)
        self._words[_GENERATION] += 1


def _anonymous_file() -> int:
    """Return a file without a name: in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("smallfry")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
