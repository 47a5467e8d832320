"""Unnamed temporary files, which the system removes however the process ends."""

from __future__ import annotations

import io
import math
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ScratchArray:
    """An array filled in order along its first axis: in memory, or in an unnamed file.

    Parameters
    ----------
    shape : tuple of int
        The first number is the most rows that are appended.
    dtype : dtype
    folder : path, optional
        Folder of the file; in memory by default.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: DTypeLike, folder: str | os.PathLike[str] | None = None
    ) -> None:
        self._shape, self._dtype, self._folder = shape, np.dtype(dtype), folder
        self._file = None if folder is None else unnamed(folder)
        self._held = np.empty(shape if folder is None else (0, *shape[1:]), dtype)
        self._count = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows ``[m, …]``."""
        end = self._count + len(rows)
        if self._file is None or self._folder is None:
            self._held[self._count : end] = rows
        else:
            values = rows.astype(self._dtype, copy=False)
            append(self._file, values, self._folder, math.prod(self._shape) * self._dtype.itemsize)
        self._count = end

    def array(self) -> NDArray[Any]:
        """Return the rows appended, as a read-only memory map if they are in a file. It outlives `close`."""
        if self._file is None or not self._count:
            return self._held[: self._count]
        return np.memmap(self._file, self._dtype, "r", shape=(self._count, *self._shape[1:]))

    def close(self) -> None:
        """Close the file; the system removes it when no array is left."""
        if self._file is not None:
            self._file.close()


def unnamed(folder: str | os.PathLike[str]) -> io.FileIO:
    """Open a new file in a folder."""
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def append(file: io.FileIO, values: NDArray[Any], folder: str | os.PathLike[str], needed: int) -> None:
    """Append an array to a file in `folder`; all files need `needed` bytes or more then."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    try:
        while len(data):
            data = data[file.write(data) :]
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; the vectors need {needed:,} bytes or more of temporary space there",
            os.fspath(folder),
        ) from error
