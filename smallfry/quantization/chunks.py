"""The matrix to compress: validated, converted to float32 in chunks, and scanned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError, NonFiniteError
from smallfry.progress import Progress

# Values of a chunk.
_CHUNK_VALUES = 1 << 22
# Values of a block. Sums run per block, so they depend on neither chunk size nor threads.
_BLOCK_VALUES = 1 << 16
_HISTOGRAM_BINS = 1 << 16
# Values of a pass that take as long as to read one row.
_ROW_COST = 1 << 14


class MatrixChunks(Protocol):
    """A matrix larger than memory: its shape, and an iteration over its rows that can be repeated."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 arrays ``[m, dim]``."""
        ...


@runtime_checkable
class RowReader(Protocol):
    """A matrix whose rows can be read in any order."""

    def read(self, first: int, out: NDArray[np.float32]) -> None:
        """Write the rows from row `first` on to `out`, float32 ``[m, dim]``."""
        ...


@runtime_checkable
class Located(Protocol):
    """Chunks of a matrix whose rows have another name and number in their source."""

    def locate(self, row: int) -> tuple[str, int]:
        """Return the name of the tensor that holds a row, and the number of the row in it."""
        ...


class Matrix:
    """A matrix read in passes over the same float32 chunks.

    Parameters
    ----------
    source : ndarray of a float dtype, shape [rows, dim], or MatrixChunks
    progress : callable, optional

    Attributes
    ----------
    rows, dim : int
    block_rows : int
        Every chunk but the last has a multiple of this many rows.
    """

    def __init__(
        self, source: NDArray[np.floating[Any]] | MatrixChunks, progress: Progress | None = None
    ) -> None:
        shape = tuple(source.shape)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"the matrix has shape {list(shape)}, expected [rows, dim], both 1 or more")
        if isinstance(source, np.ndarray):
            _check_float(source.dtype)
        self.rows, self.dim = int(shape[0]), int(shape[1])
        self.block_rows = _block_rows(self.dim)
        self._source = source
        self._progress = progress

    def chunks(self, stage: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first row number and the C-contiguous rows of each chunk."""
        done = 0
        for chunk in self._chunks():
            yield done, chunk
            done += len(chunk)
            if self._progress is not None:
                self._progress(stage, done, self.rows)
        if done != self.rows:
            raise InputError(f"the matrix has {done} rows, but its shape has {self.rows}")

    def silent(self) -> Matrix:
        """Return the matrix without its progress."""
        return Matrix(self._source)

    def blocks(self, chunk: NDArray[np.float32]) -> int:
        """Return the number of blocks of a chunk."""
        return -(-len(chunk) // self.block_rows)

    def non_finite_error(self, row: int, column: int, value: np.float32) -> NonFiniteError:
        """Return the error for a value that is not finite in float32."""
        source = self._source[row, column] if isinstance(self._source, np.ndarray) else value
        name, row = self._source.locate(row) if isinstance(self._source, Located) else ("the matrix", row)
        where = f"at row {row}, column {column}"
        if np.isfinite(source):
            return NonFiniteError(f"{name} holds {source} {where}, beyond float32; scale it down")
        return NonFiniteError(f"{name} holds {source} {where}, expected finite numbers")

    def squared_norms(self, rows: NDArray[np.float32], numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the sum of the squares of each row; raise NonFiniteError if one is not finite.

        It is 0 only for a row of zeros: the square of any other float32 is a float64 above 0. `numbers` are
        those of the rows in the matrix.
        """
        norms = squared_norms(rows)
        if not np.isfinite(norms).all():
            row = int(np.isfinite(norms).argmin())
            column = int(np.isfinite(rows[row]).argmin())
            raise self.non_finite_error(numbers[row], column, rows[row, column])
        return norms

    def rows_at(self, numbers: Sequence[int]) -> NDArray[np.float32] | None:
        """Return the rows of increasing numbers; None if a pass is faster, or the only way to read them."""
        if isinstance(self._source, np.ndarray):
            return _as_float32(self._source[numbers])
        if not isinstance(self._source, RowReader) or len(numbers) * _ROW_COST > self.rows * self.dim:
            return None
        rows = np.empty((len(numbers), self.dim), np.float32)
        for at, number in enumerate(numbers):
            self._source.read(number, rows[at : at + 1])
        return rows

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        if isinstance(self._source, np.ndarray):
            step = max(1, _CHUNK_VALUES // (self.block_rows * self.dim)) * self.block_rows
            for start in range(0, self.rows, step):
                yield _as_float32(self._source[start : start + step])
        else:
            yield from self._whole_blocks(self._source)

    def _whole_blocks(self, source: MatrixChunks) -> Iterator[NDArray[np.float32]]:
        rest = np.empty((0, self.dim), np.float32)
        for chunk in source:
            if chunk.ndim != 2 or chunk.shape[1] != self.dim:
                raise InputError(f"a chunk has shape {list(chunk.shape)}, expected [rows, {self.dim}]")
            _check_float(chunk.dtype)
            part = _as_float32(chunk)
            if len(rest):
                missing = self.block_rows - len(rest)
                rest, part = np.concatenate([rest, part[:missing]]), part[missing:]
                if len(rest) < self.block_rows:
                    continue
                yield rest
            whole = len(part) // self.block_rows * self.block_rows
            if whole:
                yield part[:whole]
            rest = part[whole:].copy()
        if len(rest):
            yield rest


@dataclass(frozen=True)
class Scan:
    """Result of one pass over a matrix.

    Attributes
    ----------
    zero_values : int
        Number of values in rows of zeros.
    peak : float
        The largest absolute value.
    counts, lows : ndarray of int64
        Histogram of the absolute values; see `smallfry.kernels.numpy.quantize.scan`.
    values : ValueSet, optional
        Distinct values outside zero rows; None if they exceed the limit.
    """

    zero_values: int
    peak: float
    counts: NDArray[np.int64]
    lows: NDArray[np.int64]
    values: Any


def scan(matrix: Matrix, distinct: int) -> Scan:
    """Scan the matrix once and collect up to ``distinct`` distinct values.

    Raises
    ------
    NonFiniteError
        A value is NaN, infinite, or beyond float32.
    """
    zero_rows = 0
    counts, lows = np.zeros(_HISTOGRAM_BINS, np.int64), np.zeros(_HISTOGRAM_BINS, np.int64)
    values = kernels.ValueSet(distinct) if distinct else None
    peak = 0.0
    for first, chunk in matrix.chunks("scan"):
        flags = np.empty(len(chunk), np.uint8)
        chunk_peak, bad = kernels.scan(chunk, flags, counts, lows, kernels.default_threads())
        if bad >= 0:
            row, column = divmod(bad, matrix.dim)
            raise matrix.non_finite_error(first + row, column, chunk[row, column])
        peak = max(peak, chunk_peak)
        zero_rows += int(flags.sum(dtype=np.int64))
        if values is not None and not values.add(chunk, flags):
            values = None
    return Scan(zero_rows * matrix.dim, peak, counts, lows, values)


def squared_norms(rows: NDArray[np.float32], other: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Return the sum of the squares of each row, or of its difference from that of another matrix."""
    norms = np.empty(len(rows))
    kernels.squared_norms(rows, other, norms, kernels.default_threads())
    return norms


def chunk_rows(dim: int) -> int:
    """Return the rows of a chunk of about 8 MB that need not be divided into whole blocks."""
    return _block_rows(dim) * max(1, (1 << 21) // (_block_rows(dim) * dim))


def _block_rows(dim: int) -> int:
    return max(1, _BLOCK_VALUES // dim)


def _check_float(dtype: np.dtype[Any]) -> None:
    # Extension types such as bfloat16 have kind "V" and convert to float32.
    if dtype.kind != "f" and not (dtype.kind == "V" and np.can_cast(dtype, np.float32)):
        raise InputError(f"the matrix is {dtype}, expected a float type. Please convert it to float32")


def _as_float32(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)
