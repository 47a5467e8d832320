"""Gather, decode and pool packed rows with NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Values decoded at a time, which bounds the temporaries.
_BLOCK_VALUES = 1 << 20


def pack(values: NDArray[np.uint16], nbit: int) -> NDArray[np.uint8]:
    """Pack codes ``[rows, dim]`` into bytes ``[rows, ceil(dim * nbit / 8)]``, low bits first."""
    rows, dim = values.shape
    if nbit == 16:
        return np.ascontiguousarray(values, "<u2").view(np.uint8).reshape(rows, 2 * dim)
    per_byte = 8 // nbit
    stride = -(-dim // per_byte)
    padded = np.zeros((rows, stride * per_byte), np.uint8)
    padded[:, :dim] = values
    shifts = np.arange(0, 8, nbit, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(padded.reshape(rows, stride, per_byte) << shifts, axis=2)
    return packed


def unpack(codes: NDArray[np.uint8], dim: int, nbit: int) -> NDArray[np.uint16]:
    """Unpack bytes ``[rows, ceil(dim * nbit / 8)]`` into codes ``[rows, dim]``."""
    rows, stride = codes.shape
    if nbit == 16:
        return np.ascontiguousarray(codes).view("<u2").reshape(rows, dim).astype(np.uint16)
    shifts = np.arange(0, 8, nbit, dtype=np.uint8)
    values = codes[:, :, None] >> shifts & np.uint8(2**nbit - 1)
    return values.reshape(rows, stride * (8 // nbit))[:, :dim].astype(np.uint16)


class Decoder:
    """Decode rows of one packed matrix; see `smallfry.table.Table` for the arrays."""

    def __init__(
        self,
        codes: NDArray[np.uint8] | NDArray[np.float32],
        dim: int,
        nbit: int,
        codebook: NDArray[np.float32] | None,
        mean: NDArray[np.float32] | None,
        row_scale: NDArray[np.float16] | None,
        zero_rows: NDArray[np.uint32],
    ) -> None:
        self._codes = codes
        self._dim = dim
        self._nbit = nbit
        self._codebook = codebook
        self._mean = mean
        self._row_scale = row_scale
        self._zero_rows = zero_rows

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self._codes)

    def decode(
        self,
        ids: NDArray[np.integer] | None,
        out: NDArray[np.float32],
        fill: NDArray[np.float32] | None,
        threads: int,
    ) -> None:
        """Write row ``ids[i]`` (row ``i`` if ids is None) to ``out[i]``; id -1 writes ``fill``."""
        if ids is None:
            ids = np.arange(len(self._codes))
        self._check(ids, fill is not None)
        step = max(1, _BLOCK_VALUES // self._dim)
        for start in range(0, len(ids), step):
            block = ids[start : start + step]
            rows = self._rows(block)
            if fill is not None:
                rows[block == -1] = fill
            out[start : start + step] = rows

    def gather(self, ids: NDArray[np.integer], out: NDArray[np.uint8]) -> None:
        """Write the packed bytes of row ``ids[i]`` to ``out[i]``; id -1 writes zeros."""
        self._check(ids, True)
        raw = self._codes.view(np.uint8)
        if len(raw):
            out[:] = raw[ids]
        out[ids == -1] = 0

    def bag(
        self,
        ids: NDArray[np.integer],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float32] | None,
        mode: str,
        out: NDArray[np.float32],
        threads: int,
    ) -> None:
        """Pool rows ``ids[offsets[b]:offsets[b + 1]]`` into ``out[b]``, skipping id -1."""
        self._check(ids, True)
        ends = np.append(offsets[1:], len(ids))
        for bag, (start, end) in enumerate(zip(offsets, ends, strict=True)):
            kept = ids[start:end] != -1
            scales = None if weights is None else weights[start:end][kept]
            out[bag] = self._pooled(ids[start:end][kept], scales, mode)

    def _pooled(
        self, ids: NDArray[np.integer], weights: NDArray[np.float32] | None, mode: str
    ) -> NDArray[np.float32]:
        pooled = np.zeros(self._dim, np.float32)
        for i, row in enumerate(self._rows(ids)):
            if mode == "max":
                pooled = row if i == 0 else np.where(pooled < row, row, pooled)
            else:
                pooled += row if weights is None else row * weights[i]
        if mode == "mean" and len(ids):
            pooled /= np.float32(len(ids))
        return pooled

    def _rows(self, ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Decode rows; id -1 decodes an arbitrary row."""
        if len(ids) and not len(self._codes):
            return np.zeros((len(ids), self._dim), np.float32)
        packed = self._codes[ids]
        with np.errstate(over="ignore", invalid="ignore"):
            rows = self._values(packed)
            if self._row_scale is not None:
                rows *= self._row_scale[ids].astype(np.float32)[:, None]
            if self._mean is not None:
                rows += self._mean
        if len(self._zero_rows):
            at = np.searchsorted(self._zero_rows, ids)
            rows[self._zero_rows[np.minimum(at, len(self._zero_rows) - 1)] == ids] = 0.0
        return rows

    def _values(self, packed: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        if self._codebook is None:
            return packed.astype(np.float32)
        if self._codebook.ndim == 2:
            width = packed.shape[1] * self._codebook.shape[1]
            return self._codebook[packed].reshape(len(packed), width)[:, : self._dim].copy()
        return self._codebook[unpack(packed.view(np.uint8), self._dim, self._nbit)]

    def _check(self, ids: NDArray[np.integer], missing: bool) -> None:
        wrong = (ids < (-1 if missing else 0)) | (ids >= len(self._codes))
        if wrong.any():
            raise IndexError(
                f"row id {ids[wrong.argmax()]} is out of range for a table of {len(self._codes)} rows"
            )


def simd() -> str:
    """Return the name of the active instruction set."""
    return "numpy"
