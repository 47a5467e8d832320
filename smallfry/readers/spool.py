"""A matrix too large for memory, kept in an unnamed temporary file while it is compressed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.records import join_tokens
from smallfry.readers.source import VectorSource
from smallfry.vocabulary import PackedTokens

_CHUNK_BYTES = 1 << 23


class ScratchMatrix:
    """Rows appended once and read in order any number of times.

    Implements `smallfry.quantization.chunks.MatrixChunks`. The rows are float32 in an unnamed temporary file,
    which takes 4 bytes a value in `folder` and which the system removes however the process ends.
    """

    def __init__(self, folder: str | os.PathLike[str], dim: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._folder = folder
        self._dim = dim
        self._rows = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, self._dim

    def append(self, rows: NDArray[np.float32]) -> None:
        """Append float32 rows ``[m, dim]``."""
        data = np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.uint8).data
        try:
            while len(data):
                data = data[self._file.write(data) :]
        except OSError as error:
            needed = 4 * self._dim * (self._rows + len(rows))
            raise OSError(
                error.errno,
                f"{error.strerror}; the vectors need more than {needed:,} bytes of temporary space there",
                os.fspath(self._folder),
            ) from error
        self._rows += len(rows)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in order as float32 arrays ``[m, dim]`` of about 8 MB."""
        step = max(1, _CHUNK_BYTES // (4 * self._dim))
        for start in range(0, self._rows, step):
            chunk = np.empty((min(step, self._rows - start), self._dim), np.float32)
            rest, offset = chunk.reshape(-1).view(np.uint8).data, 4 * self._dim * start
            while len(rest):
                count = os.preadv(self._file.fileno(), [rest], offset)
                if count == 0:
                    raise OSError(f"the temporary file in {os.fspath(self._folder)} was truncated")
                rest, offset = rest[count:], offset + count
            yield chunk

    def mapped(self) -> NDArray[np.float32]:
        """Return the rows as a read-only memory map."""
        return np.memmap(self._file, np.float32, "r", shape=self.shape)

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
    """Append all vectors of `source` to `matrix`; return its tokens, None if it has none."""
    parts: list[PackedTokens] = []
    for tokens, rows in source.chunks():
        matrix.append(rows)
        if tokens is not None:
            parts.append(tokens)
    if matrix.shape[0] == 0:
        raise InputError(f"{source.name} holds no vectors, expected one or more.")
    return join_tokens(parts) if parts else None
