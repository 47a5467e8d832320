"""Original and compressed vectors, read in blocks of float32 rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.progress import Progress
from smallfry.table import Table

# Rows and values of a block at most.
BLOCK_ROWS, BLOCK_VALUES = 8192, 1 << 22


class Vectors(Protocol):
    """Vectors by row number."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions."""
        ...

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows as a new float32 array ``[n, dim]``."""
        ...


class ArrayVectors:
    """Rows of a matrix of any float dtype, in memory or memory-mapped."""

    def __init__(self, matrix: NDArray[np.floating[Any]]) -> None:
        self._matrix = matrix
        self.shape: tuple[int, int] = (matrix.shape[0], matrix.shape[1])

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows as a new float32 array ``[n, dim]``."""
        return self._matrix[ids].astype(np.float32)


class TableVectors:
    """Rows of a compressed table, in the basis of the original vectors.

    Parameters
    ----------
    table : Table
    ids : ndarray of int64, shape [rows], optional
        The table's row for each row of the original, if their orders differ.
    """

    def __init__(self, table: Table, ids: NDArray[np.int64] | None = None) -> None:
        self._table, self._ids = table, ids
        self.shape: tuple[int, int] = (table.rows if ids is None else len(ids), table.dim)

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows as a new float32 array ``[n, dim]``."""
        rows = self._table.decode(ids if self._ids is None else self._ids[ids])
        rotation = self._table.rotation
        return rows if rotation is None else rows @ rotation.T


def blocks(
    shape: tuple[int, int], name: str, progress: Progress | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of vectors of a shape in blocks; report progress after each."""
    rows, dim = shape
    step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // dim))
    for start in range(0, rows, step):
        ids = np.arange(start, min(rows, start + step))
        yield ids
        if progress is not None:
            progress(name, int(ids[-1]) + 1, rows)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows scaled to length 1; zero rows stay zero."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    scaled: NDArray[np.float32] = (vectors / np.where(lengths == 0.0, 1.0, lengths)).astype(np.float32)
    return scaled
