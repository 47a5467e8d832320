"""Encoded rows, appended in order, and the table that they make."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.paging import Paging
from smallfry.scratch import ScratchArray
from smallfry.table import Table


class EncodedRows:
    """The rows of a table, contiguous or paged.

    Parameters
    ----------
    table : Table
        Of no rows. It has `row_scale` if its rows have scales.
    rows : int
        Number of rows to append.
    paged : bool
        Put the scale of each row next to its codes; see `smallfry.paging`.
    folder : path, optional
        Folder of unnamed files that hold the rows; in memory by default.
    """

    def __init__(
        self, table: Table, rows: int, *, paged: bool = False, folder: str | os.PathLike[str] | None = None
    ) -> None:
        if paged and table.codebook is None:
            raise InputError("a table of 32 bits a value cannot be paged. Use 16 bits or fewer.")
        self._table, self._rows = table, rows
        self._paging = Paging(rows, table.stride) if paged else None
        shape = (rows, table.codes.shape[1]) if self._paging is None else self._paging.shape
        self._codes = ScratchArray(shape, table.codes.dtype, folder)
        self._scale = ScratchArray((rows,), np.float16, folder)
        self._zero_rows = ScratchArray((rows,), np.uint32, folder)
        self._rest: tuple[NDArray[Any], NDArray[np.float16]] = table.codes, np.empty(0, np.float16)
        self._count = 0

    def append(
        self, codes: NDArray[Any], scale: NDArray[np.float16] | None, zero: NDArray[np.bool_] | None
    ) -> None:
        """Append the codes of rows ``[m, …]``, their scales, and whether each is exact zeros."""
        if self._paging is not None:
            scale = np.ones(len(codes), np.float16) if scale is None else scale
            self._append_records(codes, scale if zero is None else np.where(zero, np.float16(0), scale))
        else:
            self._codes.append(codes)
            if scale is not None:
                self._scale.append(scale)
            if zero is not None:
                self._zero_rows.append(np.flatnonzero(zero) + self._count)
        self._count += len(codes)

    def table(self, table: Table) -> Table:
        """Return `table`, which has no rows, with the rows appended."""
        if self._paging is not None:
            return replace(table, codes=self._codes.array(), row_scale=None, paged_rows=self._rows)
        return replace(
            table,
            codes=self._codes.array(),
            row_scale=None if table.row_scale is None else self._scale.array(),
            zero_rows=self._zero_rows.array(),
        )

    def __enter__(self) -> EncodedRows:
        return self

    def __exit__(self, *error: object) -> None:
        for array in (self._codes, self._scale, self._zero_rows):
            array.close()

    def _append_records(self, codes: NDArray[Any], scale: NDArray[np.float16]) -> None:
        assert self._paging is not None
        codes = np.concatenate([self._rest[0], codes])
        scale = np.concatenate([self._rest[1], scale])
        last = self._count + len(codes) - len(self._rest[0]) == self._rows
        count = len(codes) if last else len(codes) // self._paging.per_block * self._paging.per_block
        part = Paging(count, self._paging.stride)
        blocks = np.zeros(part.shape, np.uint8)
        part.fill(blocks, 0, codes[:count], scale[:count])
        self._codes.append(blocks)
        self._rest = codes[count:].copy(), scale[count:].copy()
