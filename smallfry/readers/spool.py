"""Vectors and tokens too large for memory, kept in unnamed temporary files while they are compressed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import Offsets
from smallfry.quantization.chunks import chunk_rows
from smallfry.readers.source import VectorSource
from smallfry.readers.stored import StoredRows, read_ahead
from smallfry.scratch import append, unnamed
from smallfry.vocabulary import PackedTokens


class ScratchMatrix:
    """Rows appended once and read in order any number of times.

    Implements `smallfry.quantization.chunks.MatrixChunks`. The rows are float32 in an unnamed temporary file,
    which takes 4 bytes a value in `folder`. Rows that `region` has already are read from there instead.
    """

    def __init__(self, folder: str | os.PathLike[str], dim: int, region: StoredRows | None = None) -> None:
        self.folder = folder
        self._region = region
        self._file = None if region is not None else unnamed(folder)
        self._dim = dim
        self._rows = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, self._dim

    def append(self, rows: NDArray[np.float32]) -> None:
        """Append float32 rows ``[m, dim]``."""
        if self._file is not None:
            needed = 4 * self._dim * (self._rows + len(rows))
            append(self._file, rows.astype(np.float32, copy=False), self.folder, needed)
        self._rows += len(rows)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in order as float32 arrays ``[m, dim]`` of about 8 MB."""
        return read_ahead(self.shape, self.read)

    def read(self, first: int, out: NDArray[np.float32]) -> None:
        """Write the rows from row `first` on to `out`, float32 ``[m, dim]``."""
        if self._region is not None:
            self._region.read(first, out)
            return
        assert self._file is not None
        rest, offset = out.reshape(-1).view(np.uint8).data, 4 * self._dim * first
        while len(rest) and (read := os.preadv(self._file.fileno(), [rest], offset)):
            rest, offset = rest[read:], offset + read
        if len(rest):
            raise InputError(f"the temporary file in {self.folder} changed while it was read.")

    def mapped(self) -> NDArray[np.float32]:
        """Return the rows appended to a file of their own, as a read-only memory map."""
        assert self._file is not None
        return np.memmap(self._file, np.float32, "r", shape=self.shape)

    def __enter__(self) -> ScratchMatrix:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
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
        step = chunk_rows(self.shape[1])
        for start in range(0, len(self.order), step):
            yield rows[self.order[start : start + step]]


def spool(source: VectorSource, matrix: ScratchMatrix) -> PackedTokens | None:
    """Append all vectors of `source` to `matrix`; return its tokens, None if it has none.

    The bytes of the tokens are a read-only memory map of an unnamed file in the folder of `matrix`.
    """
    with unnamed(matrix.folder) as file, unnamed(matrix.folder) as lengths:
        size, has_tokens = 0, False
        for tokens, rows in source.chunks():
            matrix.append(rows)
            if tokens is not None:
                has_tokens = True
                size += len(tokens.buf)
                append(file, tokens.buf, matrix.folder, size)
                append(lengths, np.diff(tokens.offsets).astype(np.uint32), matrix.folder, size)
        if matrix.shape[0] == 0:
            raise InputError(f"{source.name} holds no vectors, expected one or more.")
        if not has_tokens:
            return None
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        count = matrix.shape[0]
        offsets: Offsets = np.zeros(count + 1, np.uint32) if size < 2**32 else np.zeros(count + 1, np.uint64)
        np.cumsum(np.memmap(lengths, np.uint32, "r", shape=count), out=offsets[1:])
    return PackedTokens(np.frombuffer(mapped, np.uint8), offsets)
