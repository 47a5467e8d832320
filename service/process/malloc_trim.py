"""Memory that was needed for a while: giving it back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path
from resource import getpagesize
from time import monotonic

#: Bytes above its least size that a process may keep.
_WORTH = 1 << 24
#: Bytes that are worth another look soon.
_GIVEN = 1 << 20
#: Seconds between two looks: what is given back is fetched again by the next large request. They double up to
#: the longest while there is nothing to give: what is freed later does not show in the size.
_PAUSE, _LONGEST = 5.0, 60.0


class MallocTrimmer:
    """Gives back what large requests left behind, where the allocator can (glibc's ``malloc_trim``).

    Freed memory is kept by the allocator, for each thread apart, and by nobody used: without this, a server
    stays for good as large as its largest requests made it.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._least = _private()
        self._pause = _PAUSE
        self._next = 0.0

    def due(self) -> bool:
        """Say whether the process is so much larger than it was once that it is worth to `reclaim`."""
        if self._trim is None or monotonic() < self._next:
            return False
        size = _private()
        self._least = min(self._least, size)
        return size > self._least + _WORTH

    def reclaim(self) -> None:
        """Give back what is free. Takes milliseconds; other threads go on meanwhile."""
        self._next = monotonic() + _PAUSE  # not twice at once
        assert self._trim is not None
        before = _private()
        self._trim(0)
        self._pause = _PAUSE if before - _private() > _GIVEN else min(2 * self._pause, _LONGEST)
        self._next = monotonic() + self._pause


def _private() -> int:
    """Return the bytes of the process that no file backs; 0 where the system does not tell."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * getpagesize()
