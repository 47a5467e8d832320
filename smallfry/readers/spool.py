"""Vectors and tokens too large for memory, kept in unnamed temporary files while they are compressed."""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import Offsets
from smallfry.readers.records import FileRegion
from smallfry.readers.source import VectorSource
from smallfry.vocabulary import PackedTokens

_CHUNK_BYTES = 1 << 23


class ScratchMatrix:
    """Rows appended once and read in order any number of times.

    Implements `smallfry.quantization.chunks.MatrixChunks`. The rows are float32 in an unnamed temporary file,
    which takes 4 bytes a value in `folder` and which the system removes however the process ends. Rows that
    `region` has already are read from there instead.
    """

    def __init__(self, folder: str | os.PathLike[str], dim: int, region: FileRegion | None = None) -> None:
        self.folder = folder
        self._region = region
        self._file = _unnamed(folder) if region is None else open(region.path, "rb", buffering=0)
        self._begin = 0 if region is None else region.offset
        self._version = self._stat()
        self._dim = dim
        self._rows = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, self._dim

    def append(self, rows: NDArray[np.float32]) -> None:
        """Append float32 rows ``[m, dim]``."""
        if self._region is None:
            needed = 4 * self._dim * (self._rows + len(rows))
            _append(self._file, rows.astype(np.float32, copy=False), self.folder, needed)
        self._rows += len(rows)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in order as float32 arrays ``[m, dim]`` of about 8 MB, one read ahead."""
        step = max(1, _CHUNK_BYTES // (4 * self._dim))
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._read, 0, step)
            for start in range(step, self._rows + step, step):
                chunk = ahead.result()
                if start < self._rows:
                    ahead = pool.submit(self._read, start, step)
                yield chunk

    def _read(self, start: int, count: int) -> NDArray[np.float32]:
        chunk = np.empty((min(count, self._rows - start), self._dim), np.float32)
        rest, offset = chunk.reshape(-1).view(np.uint8).data, self._begin + 4 * self._dim * start
        while len(rest) and (read := os.preadv(self._file.fileno(), [rest], offset)):
            rest, offset = rest[read:], offset + read
        if len(rest) or (self._region is not None and self._stat() != self._version):
            name = self._region.path if self._region else f"the temporary file in {self.folder}"
            raise InputError(f"{name} changed while it was read. Please try again.")
        return chunk

    def mapped(self) -> NDArray[np.float32]:
        """Return the rows as a read-only memory map."""
        return np.memmap(self._file, np.float32, "r", self._begin, self.shape)

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def __enter__(self) -> ScratchMatrix:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@dataclass(frozen=True)
class Reordered:
    """Rows of a scratch matrix in another order; implements `smallfry.quantization.chunks.MatrixChunks`."""

    matrix: ScratchMatrix
    order: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.order), self.matrix.shape[1]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows as float32 arrays ``[m, dim]`` of about 8 MB."""
        rows = self.matrix.mapped()
        step = max(1, _CHUNK_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self.order), step):
            yield rows[self.order[start : start + step]]


def spool(source: VectorSource, matrix: ScratchMatrix) -> PackedTokens | None:
    """Append all vectors of `source` to `matrix`; return its tokens, None if it has none.

    The bytes of the tokens are a read-only memory map of an unnamed file in the folder of `matrix`.
    """
    with _unnamed(matrix.folder) as file, _unnamed(matrix.folder) as lengths:
        size, has_tokens = 0, False
        for tokens, rows in source.chunks():
            matrix.append(rows)
            if tokens is not None:
                has_tokens = True
                size += len(tokens.buf)
                _append(file, tokens.buf, matrix.folder, size)
                _append(lengths, np.diff(tokens.offsets).astype(np.uint32), matrix.folder, size)
        if matrix.shape[0] == 0:
            raise InputError(f"{source.name} holds no vectors, expected one or more.")
        if not has_tokens:
            return None
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        count = matrix.shape[0]
        offsets: Offsets = np.zeros(count + 1, np.uint32) if size < 2**32 else np.zeros(count + 1, np.uint64)
        np.cumsum(np.memmap(lengths, np.uint32, "r", shape=count), out=offsets[1:])
    return PackedTokens(np.frombuffer(mapped, np.uint8), offsets)


def _unnamed(folder: str | os.PathLike[str]) -> io.FileIO:
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _append(file: io.FileIO, values: NDArray[Any], folder: str | os.PathLike[str], needed: int) -> None:
    """Append an array to a file in `folder`; all files need `needed` bytes or more then."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    try:
        while len(data):
            data = data[file.write(data) :]
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; the vectors need more than {needed:,} bytes of temporary space there",
            os.fspath(folder),
        ) from error
