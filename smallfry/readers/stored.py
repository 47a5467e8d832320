"""Matrices stored in uncompressed files, whose rows can be read any number of times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.quantization.chunks import chunk_rows
from smallfry.readers.formats.scale import Scale
from smallfry.readers.formats.values import convert


@dataclass(frozen=True)
class StoredRows:
    """Rows of a contiguous matrix in an uncompressed file.

    Attributes
    ----------
    name : str
        Name of the matrix, for messages.
    path : Path
    offset : int
        Where the first row begins.
    shape : tuple of int
        Rows and columns.
    dtype : dtype
        One that `smallfry.readers.formats.values.convert` reads.
    scale : Scale, optional
    """

    name: str
    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    scale: Scale | None = None
    _version: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_version", _version(os.stat(self.path)))

    def check_size(self, unit: str = "rows") -> None:
        """Raise InputError if the file ends before the last row."""
        row_bytes = self.shape[1] * self.dtype.itemsize
        held = max(0, os.stat(self.path).st_size - self.offset) // max(1, row_bytes)
        if held < self.shape[0]:
            raise InputError(
                f"{self.name} ends after {held:,} of {self.shape[0]:,} {unit}. "
                "Please copy or download it again."
            )

    def read(self, first: int, out: NDArray[np.float32]) -> None:
        """Write the rows from row `first` on to `out`, float32 ``[m, columns]``.

        Raises
        ------
        InputError
            The file is another one than when this object was made.
        """
        row_bytes = self.shape[1] * self.dtype.itemsize
        stored = out if self.dtype == np.dtype("<f4") else np.empty(out.shape, self.dtype)
        rest, offset = stored.reshape(-1).view(np.uint8).data, self.offset + first * row_bytes
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while len(rest) and (read := os.preadv(file, [rest], offset)):
                rest, offset = rest[read:], offset + read
            if len(rest) or _version(os.fstat(file)) != self._version:
                raise InputError(f"{self.path} changed while it was read. Please try again.")
        finally:
            os.close(file)
        if stored is not out:
            convert(stored, out)
        if self.scale is not None:
            self.scale.multiply(out, first)


class StoredMatrix:
    """Consecutive matrices of equal width; implements `smallfry.quantization.chunks.MatrixChunks`.

    Attributes
    ----------
    parts : sequence of StoredRows
    names : sequence of str
        Names of the tensors.
    offsets : ndarray of uint64, shape [parts + 1]
        Where the rows of each part begin, and where the last end.
    """

    def __init__(self, parts: Sequence[StoredRows], names: Sequence[str]) -> None:
        self.parts, self.names = parts, names
        self.offsets = np.cumsum([0, *(part.shape[0] for part in parts)], dtype=np.uint64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.offsets[-1]), self.parts[0].shape[1]

    def locate(self, row: int) -> tuple[str, int]:
        """Return the name of the matrix that holds a row, and the number of the row in it."""
        part = int(np.searchsorted(self.offsets, row, "right")) - 1
        return self.parts[part].name, row - int(self.offsets[part])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in order as float32 arrays ``[m, dim]`` of about 8 MB."""
        return read_ahead(self.shape, self.read)

    def read(self, first: int, out: NDArray[np.float32]) -> None:
        """Write the rows from row `first` on to `out`, float32 ``[m, dim]``."""
        part, done = int(np.searchsorted(self.offsets, first, "right")) - 1, 0
        while done < len(out):
            begin, end = self.offsets[part : part + 2].tolist()
            count = min(end - first, len(out)) - done
            self.parts[part].read(first + done - begin, out[done : done + count])
            part, done = part + 1, done + count


def read_ahead(
    shape: tuple[int, int], read: Callable[[int, NDArray[np.float32]], None]
) -> Iterator[NDArray[np.float32]]:
    """Yield all rows of a matrix in chunks of about 8 MB, and read the next one on a thread.

    Parameters
    ----------
    shape : tuple of int
    read : callable
        Called with the first row and the array to fill, float32 ``[m, dim]``.
    """
    rows, dim = shape
    step = chunk_rows(dim)

    def chunk(start: int) -> NDArray[np.float32]:
        out = np.empty((min(step, rows - start), dim), np.float32)
        read(start, out)
        return out

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(chunk, 0)
        for start in range(step, rows + step, step):
            done = ahead.result()
            if start < rows:
                ahead = pool.submit(chunk, start)
            yield done


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
