"""Pages of memory-mapped files: access advice, residency and locks."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 16  # pages that mincore reports at a time
_WINDOW = 256  # pages of a window of a sample


@dataclass(frozen=True)
class Residency:
    """How much of a memory-mapped file is in memory, in bytes."""

    resident: int
    total: int


class Prefetch:
    """Pages that `smallfry.Store.prefetch` requested."""

    def __init__(
        self, owner: object, ranges: NDArray[np.uint64], path: str | os.PathLike[str] | None = None
    ) -> None:
        self._owner = owner  # keeps the pages mapped
        self._ranges = ranges
        self._path = path

    @property
    def pages(self) -> int:
        """Number of distinct pages."""
        return int(self._ranges[:, 1].sum()) // mmap.PAGESIZE

    def resident(self) -> int:
        """Return how many of the pages are in memory now; OSError as for `smallfry.Store.residency`."""
        if self._path is not None:
            _check_access(self._path)
        return sum(_count(begin, nbytes // mmap.PAGESIZE) for begin, nbytes in self._ranges.tolist())

    def __repr__(self) -> str:
        return f"<Prefetch pages={self.pages}>"


class Map(mmap.mmap):
    """A memory map of a whole file whose access advice can change."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the arguments of mmap
        self._random = False
        self._scans: list[None] = []  # one element for each scan

    def advise_random(self) -> None:
        """Read only the pages that are used, without those around them."""
        self._random = True
        self._advise()

    @contextmanager
    def sequential(self) -> Iterator[None]:
        """Read ahead during a read of all rows, as maps do without advice."""
        self._scans.append(None)
        self._advise()
        try:
            yield
        finally:
            self._scans.pop()
            self._advise()

    def _advise(self) -> None:
        if not self._random or not hasattr(mmap, "MADV_RANDOM"):
            return
        # Without a lock, which a fork could leave locked: repeated if another scan began or ended meanwhile.
        scanning = None
        while scanning != bool(self._scans):
            scanning = bool(self._scans)
            self.madvise(mmap.MADV_NORMAL if scanning else mmap.MADV_RANDOM)


def advise_random(array: NDArray[Any]) -> None:
    """Read only the used pages of an array over a `Map`; other arrays need no advice."""
    owner = _owner(array)
    if isinstance(owner, Map):
        owner.advise_random()


@contextmanager
def sequential(array: NDArray[Any]) -> Iterator[None]:
    """Read ahead during a read of all rows of an array over a `Map`; other arrays need no advice."""
    owner = _owner(array)
    if isinstance(owner, Map):
        with owner.sequential():
            yield
    else:
        yield


def drop_pages(array: NDArray[Any]) -> None:
    """Release the resident pages of an array over a read-only memory map; other arrays are left alone.

    The next use reads the pages again from the page cache or the disk.
    """
    owner = _owner(array)
    # The pages of a copy-on-write map hold changes that exist nowhere else.
    if isinstance(owner, mmap.mmap) and memoryview(owner).readonly and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def residency(data: NDArray[np.uint8], path: str | os.PathLike[str], sample: int | None = None) -> Residency:
    """Return how much of a mapped file is in memory, whichever process has read it.

    Parameters
    ----------
    data : ndarray of uint8
        All bytes of the file.
    path : path
    sample : int, optional
        Estimate from that many pages, in evenly spaced windows, if the file has more. Counting all takes
        longer the larger the file is.

    Raises
    ------
    OSError
        The system cannot tell, or does not tell this user.
    """
    _check_access(path)
    begin, pages = data.ctypes.data, -(-data.nbytes // mmap.PAGESIZE)
    if sample is None or pages <= sample:
        resident = _count(begin, pages) * mmap.PAGESIZE
    else:
        starts = np.linspace(0, pages - _WINDOW, max(1, sample // _WINDOW)).astype(np.int64).tolist()
        found = sum(_count(begin + start * mmap.PAGESIZE, _WINDOW) for start in starts)
        resident = round(data.nbytes * (found / (_WINDOW * len(starts))))
    return Residency(min(resident, data.nbytes), data.nbytes)


def lock(data: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Read a mapped file and keep its pages in memory until `unlock`, or until it is unmapped.

    Raises
    ------
    OSError
        The limit of locked memory is too low; the message names it.
    """
    with sequential(data):
        failed = _call("mlock", data.ctypes.data, data.nbytes)
    if failed:
        unlock(data)
        raise OSError(
            failed, f"cannot lock {data.nbytes:,} bytes in memory: {_lock_reason(failed)}", os.fspath(path)
        )


def unlock(data: NDArray[np.uint8]) -> None:
    """Let the system evict the pages of a mapped file again."""
    _call("munlock", data.ctypes.data, data.nbytes)


def read_ahead(ranges: NDArray[np.uint64]) -> None:
    """Start to read pages, uint64 ``[n, 2]`` of address and bytes; ignored by systems without read-ahead."""
    if hasattr(mmap, "MADV_WILLNEED"):
        for begin, nbytes in ranges.tolist():
            _call("madvise", begin, nbytes, mmap.MADV_WILLNEED)


def page_ranges(memory: Iterable[tuple[NDArray[np.int64], int]]) -> NDArray[np.uint64]:
    """Return the distinct pages of memory, addresses and the bytes from each, adjacent ones as one range.

    The result is uint64 ``[n, 2]``: address and bytes of each range, ascending.
    """
    size, parts = mmap.PAGESIZE, []
    for begins, nbytes in memory:
        first, last = begins // size, (begins + nbytes - 1) // size
        parts += [np.minimum(first + i, last) for i in range(-(-nbytes // size) + 1)]
    pages = np.unique(np.concatenate(parts))
    starts = np.flatnonzero(np.diff(pages, prepend=-1) != 1)
    counts = np.diff(starts, append=len(pages))
    return np.stack([pages[starts] * size, counts * size], axis=1).astype(np.uint64)


def _owner(array: NDArray[Any]) -> object:
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner


def _check_access(path: str | os.PathLike[str]) -> None:
    """Raise PermissionError if the kernel reports all pages of a file as resident (CVE-2019-5489)."""
    if os.stat(path).st_uid != os.geteuid() and not os.access(path, os.W_OK):
        raise PermissionError(
            errno.EPERM,
            "the system reports residency only to the owner of the file and those who may write it",
            os.fspath(path),
        )


def _count(begin: int, pages: int) -> int:
    """Return how many pages from an address are in memory."""
    vector, resident = np.empty(min(_PIECE, pages), np.uint8), 0
    for at in range(0, pages, _PIECE):
        part = vector[: pages - at]
        failed = _call(
            "mincore",
            begin + at * mmap.PAGESIZE,
            len(part) * mmap.PAGESIZE,
            ctypes.c_void_p(part.ctypes.data),
        )
        if failed:
            raise OSError(failed, f"the residency of a map is unknown: {os.strerror(failed)}")
        resident += int(np.count_nonzero(part & 1))
    return resident


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, address: int, nbytes: int, *rest: Any) -> int:  # noqa: ANN401 - arguments of C
    """Call a function of the C library on memory, without the GIL; return 0 or the error number."""
    if os.name != "posix":
        return errno.ENOSYS
    failed = getattr(_libc(), name)(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), *rest)
    return ctypes.get_errno() if failed else 0


def _lock_reason(failed: int) -> str:
    if failed not in (errno.ENOMEM, errno.EPERM, errno.EAGAIN):
        return os.strerror(failed)
    import resource

    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    limit = "unlimited, and memory is short" if soft == resource.RLIM_INFINITY else f"{soft:,} bytes"
    return (
        f"the limit RLIMIT_MEMLOCK is {limit}. Raise it (ulimit -l, LimitMEMLOCK= of systemd, "
        "--ulimit memlock= of docker), or use the store without a lock."
    )
