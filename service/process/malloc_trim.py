"""Return freed memory to the operating system with glibc's ``malloc_trim``."""

from __future__ import annotations

import ctypes
from pathlib import Path
from resource import getpagesize
from time import monotonic

#: Bytes above its smallest size that a process may keep.
_ALLOWED = 1 << 24
#: A trim that frees more bytes than this is soon followed by the next.
_WORTHWHILE = 1 << 20
#: Seconds between two trims: memory that was returned is allocated again by the next large request. The pause
#: doubles up to the maximum while trims free nothing.
_PAUSE, _MAX_PAUSE = 5.0, 60.0


class MallocTrimmer:
    """Trims the heap after large requests, if the allocator supports it.

    The allocator keeps freed memory in an arena per thread. Without trimming, a server stays as large as its
    largest requests made it.
    """

    def __init__(self) -> None:
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._smallest = _private_bytes()
        self._pause = _PAUSE
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether the process has grown enough for `trim` to pay, and the last one is long enough ago."""
        if self._malloc_trim is None or monotonic() < self._next:
            return False
        size = _private_bytes()
        self._smallest = min(self._smallest, size)
        return size > self._smallest + _ALLOWED

    def trim(self) -> None:
        """Trim the heap. It takes milliseconds, during which other threads run."""
        self._next = monotonic() + _PAUSE  # not twice at once
        assert self._malloc_trim is not None
        before = _private_bytes()
        self._malloc_trim(0)
        freed = before - _private_bytes()
        self._pause = _PAUSE if freed > _WORTHWHILE else min(2 * self._pause, _MAX_PAUSE)
        self._next = monotonic() + self._pause


def _private_bytes() -> int:
    """Return the resident bytes of the process that no file backs; 0 if ``/proc`` does not tell."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * getpagesize()
