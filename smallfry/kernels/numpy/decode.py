"""Gather, decode and pool packed rows with NumPy."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.pages import page_ranges, read_ahead
from smallfry.paging import Paging

# Values decoded at a time, which bounds the temporaries.
_BLOCK_VALUES = 1 << 20
# Term i of a product is added to lane i modulo _DOT_LANES; the lanes are added up as a tree.
_DOT_LANES = 16


def pack(values: NDArray[np.uint16], nbit: int) -> NDArray[np.uint8]:
    """Pack codes ``[rows, dim]`` into bytes ``[rows, ceil(dim * nbit / 8)]``, low bits first."""
    rows, dim = values.shape
    bits = (values[:, :, None] >> np.arange(nbit, dtype=np.uint16) & np.uint16(1)).astype(np.uint8)
    return np.packbits(bits.reshape(rows, dim * nbit), axis=1, bitorder="little")


def unpack(codes: NDArray[np.uint8], dim: int, nbit: int, window: int | None = None) -> NDArray[np.uint16]:
    """Unpack bytes ``[rows, ceil(dim * nbit / 8)]`` into codes ``[rows, dim]``.

    With ``window``, value ``j`` is the ``window`` bits (``nbit`` to 16) from bit ``j * nbit`` of the ring of
    ``dim * nbit`` bits: its position in a trellis codebook of ``2**window`` values.
    """
    window = nbit if window is None else window
    end, last = divmod(dim * nbit, 8)
    # The row, with the first bits of the ring appended.
    ring = np.zeros((len(codes), end + 3), np.uint32)
    ring[:, : codes.shape[1]] = codes
    ring[:, end:] &= (1 << last) - 1
    for bit in range(0, window - nbit, 8):
        first = codes[:, bit // 8].astype(np.uint32) << last
        ring[:, end + bit // 8] |= first & 0xFF
        ring[:, end + bit // 8 + 1] |= first >> 8
    starts = np.arange(0, dim * nbit, nbit)
    at, shifts = starts // 8, (starts % 8).astype(np.uint32)
    words = ring[:, at] | ring[:, at + 1] << 8 | ring[:, at + 2] << 16
    return (words >> shifts & (1 << window) - 1).astype(np.uint16)


class Decoder:
    """Decode rows of one packed matrix; see `smallfry.table.Table` for the arrays."""

    def __init__(
        self,
        codes: NDArray[np.uint8] | NDArray[np.float32],
        dim: int,
        nbit: int,
        codebook: NDArray[np.float32] | None,
        mean: NDArray[np.float32] | None,
        column_scale: NDArray[np.float32] | None,
        row_scale: NDArray[np.float16] | None,
        zero_rows: NDArray[np.uint32],
        paged_rows: int | None,
    ) -> None:
        self._codes = codes
        self._rows_held = len(codes) if paged_rows is None else paged_rows
        self._paging = None if paged_rows is None else Paging(paged_rows, -(-dim * nbit // 8))
        self._dim = dim
        self._nbit = nbit
        self._codebook = codebook
        self._mean = mean
        self._column_scale = column_scale
        self._row_scale = row_scale
        self._zero_rows = zero_rows

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._rows_held

    def decode(
        self,
        ids: NDArray[np.integer] | None,
        out: NDArray[np.float32],
        fill: NDArray[np.float32] | None,
        threads: int,
    ) -> None:
        """Write row ``ids[i]`` (row ``i`` if ids is None) to ``out[i]``; id -1 writes ``fill``.

        ``ids`` may have any shape, ``[*shape]``; ``out`` is ``[*shape, dim]``.
        """
        ids = np.arange(self.rows) if ids is None else ids.reshape(-1)
        out = out.reshape(len(ids), self._dim)
        self._check(ids, None if fill is None else -1)
        step = max(1, _BLOCK_VALUES // max(self._dim, _DOT_LANES))
        for start in range(0, len(ids), step):
            block = ids[start : start + step]
            rows = self._rows(block)
            if fill is not None:
                rows[block == -1] = fill
            out[start : start + step] = rows

    def gather(self, ids: Any, out: Any, head_offsets: NDArray[np.uint64] | None, threads: int) -> None:  # noqa: ANN401
        """Write row ``ids[i]`` to ``out[i]``, rounded to its dtype.

        ``ids`` are int32 or int64 of any shape, ``[*shape]``, and ``out`` is float32, float16, bfloat16 or
        uint16 (the bits of bfloat16), ``[*shape, dim]``; both are arrays of NumPy, of torch, or with DLPack.
        With heads, ids are local to the head, which is their last axis.
        """
        kinds = np.float32, np.float16, np.uint16
        expected = "float32, float16 or bfloat16 (or its bits, uint16)"
        rows, out = self._gathered(ids, out, head_offsets, self._dim, kinds, expected)
        step = max(1, _BLOCK_VALUES // self._dim)
        for start in range(0, len(rows), step):
            out[start : start + step] = round_values(self._rows(rows[start : start + step]), out.dtype)

    def prefetch(self, ids: Any, head_offsets: NDArray[np.uint64] | None) -> NDArray[np.uint64]:  # noqa: ANN401
        """Start to read the pages of rows, ids as for `gather`; return them as `page_ranges` does."""
        rows = self._local_rows(as_ids(ids), head_offsets).reshape(-1).astype(np.int64)
        codes, stride = self._codes, self._codes.itemsize * self._codes.shape[1]
        if self._paging is None:
            records = [(codes.ctypes.data + rows * stride, stride)]
        else:
            records = [(codes.ctypes.data + self._paging.starts(rows), self._paging.record)]
        if self._row_scale is not None:
            records.append((self._row_scale.ctypes.data + rows * 2, 2))
        ranges = page_ranges(records)
        read_ahead(ranges)
        return ranges

    def gather_records(
        self,
        ids: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
        head_offsets: NDArray[np.uint64] | None,
        threads: int,
    ) -> None:
        """Write the record of row ``ids[i]`` of a paged table to ``out[i]``, uint8 ``[*shape, record]``.

        Arguments are those of `gather`.
        """
        assert self._paging is not None
        record = self._paging.record
        rows, out = self._gathered(ids, out, head_offsets, record, (np.uint8,), "uint8")
        out[:] = self._codes.reshape(-1)[self._paging.starts(rows)[:, None] + np.arange(record)]

    def _gathered(
        self,
        ids: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
        head_offsets: NDArray[np.uint64] | None,
        width: int,
        dtypes: tuple[type, ...],
        expected: str,
    ) -> tuple[NDArray[np.integer], NDArray[Any]]:
        """Return the rows that ids stand for, and the array to write, ``[n, width]``."""
        ids, out = as_ids(ids), as_array(out, "out")
        if not out.flags.writeable:
            raise InputError("out is read-only, expected a writable array")
        if out.dtype not in dtypes:
            raise InputError(f"out is {out.dtype} {list(out.shape)}, expected {expected}")
        if out.shape != (*ids.shape, width):
            raise InputError(f"out is {out.dtype} {list(out.shape)}, expected shape {[*ids.shape, width]}")
        if np.may_share_memory(ids, out):
            raise InputError("ids and out share memory, expected separate arrays")
        rows = self._local_rows(ids, head_offsets).reshape(-1)
        return rows, out.reshape(len(rows), width)

    def _local_rows(
        self, ids: NDArray[np.integer], offsets: NDArray[np.uint64] | None
    ) -> NDArray[np.integer]:
        """Return the rows of the table that ids stand for; IndexError for the first one out of range."""
        heads = 1 if offsets is None else len(offsets) - 1
        if offsets is not None and ids.shape[-1:] != (heads,):
            raise InputError(
                f"ids are {ids.dtype} {list(ids.shape)}, expected [..., {heads}]: the last axis of ids is "
                "the head"
            )
        first = np.int64(0) if offsets is None else offsets[:-1].astype(np.int64)
        sizes = np.int64(self.rows) if offsets is None else np.diff(offsets.astype(np.int64))
        wrong = ((ids < 0) | (ids >= sizes)).reshape(-1)
        if wrong.any():
            at = int(wrong.argmax())
            head = f"head {at % heads} of {np.atleast_1d(sizes)[at % heads]} rows"
            place = f"a table of {self.rows} rows" if offsets is None else head
            raise IndexError(f"row id {ids.reshape(-1)[at]} is out of range for {place}, at position {at}")
        return np.asarray(ids + first)

    def gather_codes(self, ids: NDArray[np.integer], out: NDArray[np.uint8]) -> None:
        """Write the packed bytes of row ``ids[i]`` to ``out[i]``; id -1 writes zeros."""
        self._check(ids, -1)
        if self.rows:
            out[:] = self._packed(np.maximum(ids.astype(np.int64), 0)).view(np.uint8)
        out[ids == -1] = 0

    def gather_known(self, ids: NDArray[np.integer]) -> bytes | None:
        """Return the packed bytes of rows, and then a byte 1 for each; None if one is zeros, or its id -1."""
        self._check(ids, -1)
        rows = ids.astype(np.int64)
        if (rows == -1).any() or np.isin(rows, self._zero_rows).any():
            return None
        if self._paging is not None and not self._paging.scales(self._codes.view(np.uint8), rows).all():
            return None
        return self._packed(rows).tobytes() + b"\1" * len(rows) if len(rows) else b""

    def bag(
        self,
        ids: NDArray[np.integer],
        offsets: NDArray[np.integer] | None,
        weights: NDArray[np.float32] | None,
        mode: str,
        skip: int | None,
        out: NDArray[np.float32],
        threads: int,
    ) -> None:
        """Pool rows ``ids[offsets[b]:offsets[b + 1]]`` into ``out[b]``, without the ids equal to ``skip``.

        The last offset, the number of ids, may be left out; without offsets the bags have equal sizes.
        """
        ids = ids.reshape(-1)
        bounds = _bag_bounds(offsets, len(out), len(ids))
        self._check(ids[: bounds[-1]], skip)
        for bag, (start, end) in enumerate(pairwise(bounds)):
            kept = ids[start:end] != skip
            scales = None if weights is None else weights.reshape(-1)[start:end][kept]
            out[bag] = self._pooled(ids[start:end][kept], scales, mode)

    def multiply(self, inputs: NDArray[np.float32], out: NDArray[np.float32], threads: int) -> None:
        """Write the product of ``inputs[i]`` and row ``j`` to ``out[i, j]``.

        ``inputs`` may have any shape, ``[*shape, dim]``; ``out`` is ``[*shape, rows]``.
        """
        inputs = inputs.reshape(-1, self._dim)
        out = out.reshape(len(inputs), self.rows)
        step = max(1, _BLOCK_VALUES // max(self._dim, _DOT_LANES))
        for start in range(0, self.rows, step):
            rows = self._rows(np.arange(start, min(start + step, self.rows)))
            for i, values in enumerate(inputs):
                out[i, start : start + step] = _dots(rows, values)

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
        if len(ids) and not self.rows:
            return np.zeros((len(ids), self._dim), np.float32)
        at = np.maximum(ids.astype(np.int64), 0)
        scale = None if self._row_scale is None else self._row_scale[at]
        if self._paging is not None:
            scale = self._paging.scales(self._codes.view(np.uint8), at)
        with np.errstate(over="ignore", invalid="ignore"):
            rows = self._values(self._packed(at))
            if self._column_scale is not None:
                rows *= self._column_scale
            if scale is not None:
                rows *= scale.astype(np.float32)[:, None]
            if self._mean is not None:
                rows += self._mean
        if self._paging is not None and scale is not None:
            rows[scale == 0] = 0.0
        if len(self._zero_rows):
            at = np.searchsorted(self._zero_rows, ids)
            rows[self._zero_rows[np.minimum(at, len(self._zero_rows) - 1)] == ids] = 0.0
        return rows

    def _packed(self, ids: NDArray[np.int64]) -> NDArray[np.uint8] | NDArray[np.float32]:
        if self._paging is None:
            return self._codes[ids]
        return self._paging.codes(self._codes.view(np.uint8), ids)

    def _values(self, packed: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        if self._codebook is None:
            return packed.astype(np.float32)
        window = len(self._codebook).bit_length() - 1
        return self._codebook[unpack(packed.view(np.uint8), self._dim, self._nbit, window)]

    def _check(self, ids: NDArray[np.integer], skip: int | None) -> None:
        wrong = (ids < 0) | (ids >= self.rows)
        if skip is not None:
            wrong &= ids != skip
        if wrong.any():
            at = int(wrong.argmax())
            raise IndexError(
                f"row id {ids[at]} is out of range for a table of {self.rows} rows, at position {at}"
            )


def as_array(array: Any, name: str) -> NDArray[Any]:  # noqa: ANN401 - of any library
    """View an aligned, C-contiguous array of NumPy, torch, or with DLPack; bfloat16 as uint16.

    Raises
    ------
    InputError
        The message calls the array `name`.
    """
    kind = str(getattr(array, "dtype", ""))
    if kind == "bfloat16":
        array = array.view(np.uint16)
    elif kind == "torch.bfloat16":
        array = array.view(sys.modules["torch"].uint16)
    try:
        view = np.asarray(array) if hasattr(array, "__array__") else np.from_dlpack(array)
    except (AttributeError, BufferError, RuntimeError, TypeError) as error:
        kind = "a writable array" if name == "out" else "an array"
        raise InputError(
            f"{name} is {type(array).__name__}, expected {kind} of NumPy, torch or another library with "
            "DLPack"
        ) from error
    if not view.flags.c_contiguous:
        raise InputError(
            f"{name} is not C-contiguous, expected a C-contiguous array. Pass a contiguous copy."
        )
    if not view.flags.aligned:
        raise InputError(
            f"{name} is not aligned, expected an address that is a multiple of the size of a value. Pass a "
            "copy."
        )
    return view


def as_ids(ids: Any) -> NDArray[np.integer]:  # noqa: ANN401 - of any library
    """View an array as `as_array` does; InputError unless it is int32 or int64."""
    view = as_array(ids, "ids")
    if view.dtype not in (np.int32, np.int64):
        raise InputError(f"ids are {view.dtype} {list(view.shape)}, expected int32 or int64")
    return view


def round_values(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to nearest even: to float32 (unchanged), float16, or uint16, the bits of bfloat16."""
    if dtype == np.uint16:
        bits = values.view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _bag_bounds(offsets: NDArray[np.integer] | None, bags: int, ids: int) -> NDArray[np.int64]:
    if offsets is None:
        return np.arange(bags + 1) * (ids // max(1, bags))
    bounds = offsets.astype(np.int64)
    previous = np.append(0, bounds[:-1])
    wrong = (bounds < previous) | (bounds > ids)
    wrong[:1] |= bounds[:1] != 0
    if wrong.any():
        at = wrong.argmax()
        raise InputError(
            f"offsets[{at}] is {bounds[at]}, but offsets must start at 0 and not decrease "
            f"or exceed the {ids} ids"
        )
    return bounds if len(bounds) > bags else np.append(bounds, ids)


def _dots(rows: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    terms = rows * values
    terms = np.pad(terms, ((0, 0), (0, -terms.shape[1] % _DOT_LANES))).reshape(len(rows), -1, _DOT_LANES)
    lanes: NDArray[np.float32] = np.add.reduce(terms, axis=1, initial=np.float32(0))
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def simd() -> str:
    """Return the name of the active instruction set."""
    return "numpy"
