"""Resident pages of memory-mapped files."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


def drop_pages(array: NDArray[Any]) -> None:
    """Release the resident pages of an array over a read-only memory map; other arrays are left alone.

    The next use reads the pages again from the page cache or the disk.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    # The pages of a copy-on-write map hold changes that exist nowhere else.
    if isinstance(owner, mmap.mmap) and memoryview(owner).readonly and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
