"""Rows of a contiguous matrix, as in .npy and .safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.formats.scale import Scale
from smallfry.readers.formats.values import to_float32
from smallfry.readers.input.stream import InputStream
from smallfry.readers.records import BLOCK_BYTES, FileRegion, RecordChunk, check_dim
from smallfry.readers.words import WordList


class ByteReader(Protocol):
    """Source of a matrix's bytes."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        ...


class MatrixRecords:
    """Rows of a matrix ``[rows, dim]`` whose values `source` returns next.

    `smallfry.readers.formats.values.to_float32` converts the dtype. A matrix in Fortran order is read
    into memory whole.

    Attributes
    ----------
    words : WordList or None
        The words of the rows; None by default.
    scale : Scale or None
        Multiplies the values; None by default.
    """

    unit = "row"
    is_matrix = True

    def __init__(
        self,
        source: ByteReader,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        fortran_order: bool = False,
    ) -> None:
        check_dim(name, shape[1])
        self.rows, self.dim = shape
        self._source = source
        self._name = name
        self._dtype = dtype
        self._fortran_order = fortran_order
        self.words: WordList | None = None
        self.scale: Scale | None = None

    @property
    def region(self) -> FileRegion | None:
        """Where the rows are stored as they are read, before any is read; None if they are converted."""
        stream = self._source
        if not isinstance(stream, InputStream) or stream.path is None or stream.total_bytes is None:
            return None
        converted = self._dtype != np.dtype("<f4") or self._fortran_order or self.scale is not None
        if converted or stream.compression is not None or stream.position % 4:
            return None
        return FileRegion(stream.path, stream.position)

    def chunks(self) -> Iterator[RecordChunk]:
        """Read all rows."""
        begin = 0
        for rows in self._blocks():
            end = begin + len(rows)
            words = None if self.words is None else self.words.take(len(rows))
            vectors = to_float32(rows)
            if self.scale is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    vectors = vectors * self.scale.rows(begin, end)
            yield RecordChunk(words, vectors, np.arange(begin, end))
            begin = end
        if self.words is not None:
            self.words.finish()

    def _blocks(self) -> Iterator[NDArray[Any]]:
        row_bytes = self.dim * self._dtype.itemsize
        if self._fortran_order:
            data = b"".join(iter(lambda: self._source.read(BLOCK_BYTES), b""))
            if len(data) < self.rows * row_bytes:
                raise self._too_short(len(data) // row_bytes)
            flat = np.frombuffer(data, self._dtype, self.rows * self.dim)
            yield flat.reshape(self.rows, self.dim, order="F")
            return
        step = max(1, BLOCK_BYTES // row_bytes)
        for begin in range(0, self.rows, step):
            rows = min(step, self.rows - begin)
            data = self._source.read(rows * row_bytes)
            if len(data) < rows * row_bytes:
                raise self._too_short(begin + len(data) // row_bytes)
            yield np.frombuffer(data, self._dtype).reshape(rows, self.dim)

    def _too_short(self, rows: int) -> InputError:
        return InputError(
            f"{self._name} ends after {rows:,} of {self.rows:,} rows. Please copy or download it again."
        )
