"""Rows of a contiguous matrix, as in .npy and .safetensors files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from smallfry.errors import InputError
from smallfry.readers.formats.scale import Scale
from smallfry.readers.formats.values import to_float32
from smallfry.readers.input.stream import InputStream
from smallfry.readers.records import BLOCK_BYTES, RecordChunk, check_dim
from smallfry.readers.stored import StoredRows
from smallfry.readers.words.list import WordList


class MatrixRecords:
    """Rows of a matrix ``[rows, dim]`` whose bytes follow in `stream`, multiplied by `scale`.

    `smallfry.readers.formats.values.to_float32` converts the dtype. A matrix in Fortran order is read
    into memory whole.

    Attributes
    ----------
    words : WordList or None
        The words of the rows; None by default.
    """

    unit = "row"
    is_matrix = True

    def __init__(
        self,
        stream: InputStream,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        fortran_order: bool = False,
        scale: Scale | None = None,
    ) -> None:
        check_dim(name, shape[1])
        self.rows, self.dim = shape
        self.words: WordList | None = None
        self._stream = stream
        self._name = name
        self._dtype = dtype
        self._fortran_order = fortran_order
        self._scale = scale

    @property
    def region(self) -> StoredRows | None:
        """Where the rows can be read again, before any is read; None in a stream or in Fortran order."""
        path, offset = self._stream.stored_path, self._stream.position
        if path is None or self._fortran_order:
            return None
        return StoredRows(self._name, path, offset, (self.rows, self.dim), self._dtype, self._scale)

    def chunks(self) -> Iterator[RecordChunk]:
        """Read all rows."""
        begin = 0
        blocks: Iterable[bytes] = read_rows(
            self._stream, self._name, self.rows, self.dim * self._dtype.itemsize
        )
        if self._fortran_order:
            blocks = (b"".join(blocks),)
        for data in blocks:
            rows = np.frombuffer(data, self._dtype).reshape(
                -1, self.dim, order="F" if self._fortran_order else "C"
            )
            end = begin + len(rows)
            words = None if self.words is None else self.words.take(len(rows))
            vectors = to_float32(rows)
            if self._scale is not None:
                self._scale.multiply(vectors, begin)
            yield RecordChunk(words, vectors, np.arange(begin, end))
            begin = end
        if self.words is not None:
            self.words.finish()


def read_rows(
    stream: InputStream, name: str, rows: int, row_bytes: int, unit: str = "rows"
) -> Iterator[bytes]:
    """Yield the bytes of `rows` rows in blocks; raise InputError if the stream ends before."""
    step = max(1, BLOCK_BYTES // row_bytes)
    for begin in range(0, rows, step):
        size = min(step, rows - begin) * row_bytes
        data = stream.read(size)
        if len(data) < size:
            raise InputError(
                f"{name} ends after {begin + len(data) // row_bytes:,} of {rows:,} {unit}. "
                "Please copy or download it again."
            )
        yield data
