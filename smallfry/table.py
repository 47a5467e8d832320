"""The table: a packed matrix, how its rows decode, and bags of rows."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.ids import as_array, as_ids
from smallfry.offsets import check_heads
from smallfry.pages import Prefetch, sequential
from smallfry.paging import Paging

if TYPE_CHECKING:
    from smallfry.kernels.numpy.decode import Decoder

MAX_DIM = 1 << 16
"""Most values in a row: a decoded one takes at most 256 KB, so that files cannot make lookups expensive."""

PARTS = ("codes", "codebook", "mean", "column_scale", "row_scale", "zero_rows", "rotation", "head_offsets")

NBITS = (1, 2, 3, 4, 8, 16, 32)
KINDS: dict[str, tuple[int, ...]] = {
    "uniform": (1, 2, 4, 8, 16),
    "exact": (1, 2, 4, 8, 16),
    "trellis": (1, 2, 3, 4),
    "float": (32,),
}
"""The kinds of codebook, and the bit widths of each."""

STATE_BITS = range(8, 17)
"""Bits of the codes that a value of a trellis code depends on: its codebook has ``2**state_bits`` values."""


@dataclass(frozen=True, eq=False)
class Table:
    """A matrix ``[rows, dim]`` stored at ``nbit`` bits a value.

    A row listed in ``zero_rows`` is exact zeros. Any other decodes to ``codebook[code]``, times
    ``column_scale``, times its ``row_scale``, plus ``mean``, in float32 with one rounding for each operation.

    The bits of a row, ``dim * nbit`` from the low bit of its first byte up, form a ring. A codebook of
    ``2**L`` values is indexed by windows of L bits: value ``j`` has the bits ``j * nbit`` to
    ``j * nbit + L - 1``, and after the last bit of the ring follows its first. Only trellis codes have
    windows wider than ``nbit``.

    Parameters
    ----------
    codes : ndarray of uint8, shape [rows, ceil(dim * nbit / 8)]
        Packed codes, low bits first. The float32 matrix at 32 bits. May be a read-only view of a mapped file.
        Paged: blocks of records, of the shape of `smallfry.paging.Paging`.
    dim : int
        Values in a row.
    nbit : int
        1, 2, 3, 4, 8, 16 or 32.
    codebook_kind : str
        Kind of the codebook: ``"uniform"`` (evenly spaced levels over [-clip, clip]), ``"exact"`` (the
        distinct values of the matrix), ``"trellis"`` (learned values of overlapping windows) or ``"float"``.
    codebook : ndarray of float32, shape [2**nbit], or None
        Trellis: shape [2**L], L of `STATE_BITS`. None at 32 bits.
    clip : float
        The bound of the uniform levels, otherwise the largest absolute value.
    mean : ndarray of float32, shape [dim], optional
    column_scale : ndarray of float32, shape [dim], optional
        Only of trellis codes.
    row_scale : ndarray of float16, shape [rows], optional
    zero_rows : ndarray of uint32, optional
        Row numbers, strictly increasing.
    frobenius_error : float
        ``||X - Xq|| / ||X||`` against the matrix that was compressed.
    rotation : ndarray of float32, shape [dim, dim], optional
        Only of trellis codes. Orthogonal matrix whose columns are the axes of the decoded rows: these times
        its transpose are in the basis of the matrix. It preserves dot products and distances.
    paged_rows : int, optional
        Number of rows of a paged table, whose `codes` hold the scale of each row next to its codes. A row
        whose scale is 0 is exact zeros. It has no `row_scale` and no `zero_rows`.
    head_offsets : ndarray of uint64, shape [heads + 1], optional
        Where the rows of each head begin, and where the last end. Ids of `gather` are local to a head.
    """

    codes: NDArray[np.uint8] | NDArray[np.float32]
    dim: int
    nbit: int
    codebook_kind: str
    codebook: NDArray[np.float32] | None
    clip: float
    mean: NDArray[np.float32] | None = None
    column_scale: NDArray[np.float32] | None = None
    row_scale: NDArray[np.float16] | None = None
    zero_rows: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    frobenius_error: float = 0.0
    rotation: NDArray[np.float32] | None = None
    paged_rows: int | None = None
    head_offsets: NDArray[np.uint64] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.codes) if self.paged_rows is None else self.paged_rows

    @property
    def paging(self) -> Paging | None:
        """Where the records of a paged table are."""
        return None if self.paged_rows is None else Paging(self.paged_rows, self.stride)

    @property
    def stride(self) -> int:
        """Bytes of one packed row."""
        return -(-self.dim * self.nbit // 8)

    @property
    def has_row_scale(self) -> bool:
        """Whether rows have scales of their own."""
        return self.row_scale is not None or self.paged_rows is not None

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part, 0 for an absent part."""
        return {part: 0 if getattr(self, part) is None else getattr(self, part).nbytes for part in PARTS}

    def decode(
        self,
        ids: ArrayLike | None = None,
        *,
        out: NDArray[np.float32] | None = None,
        fill: NDArray[np.float32] | None = None,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Return rows as float32.

        Parameters
        ----------
        ids : array of integers, shape [n], optional
            Row numbers, all rows by default. With ``fill``, -1 means a missing row.
        out : ndarray of float32, shape [n, dim], optional
            C-contiguous output array.
        fill : ndarray of float32, shape [dim], optional
            Vector of id -1.
        threads : int, optional
            Maximum number of threads; small batches use one. See `smallfry.kernels.default_threads`.

        Returns
        -------
        ndarray of float32, shape [n, dim]

        Raises
        ------
        IndexError
            An id is out of range; the message has it and the number of rows.
        """
        rows = None if ids is None else as_ids(ids)
        shape = (self.rows if rows is None else len(rows), self.dim)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise InputError(f"out is {out.dtype} {list(out.shape)}, expected float32 {list(shape)}")
        with sequential(self.codes) if rows is None else nullcontext():
            self.decoder.decode(rows, out, fill, kernels.thread_count(threads, out.nbytes))
        return out

    def gather(self, ids: Any, out: Any = None, *, threads: int | None = None) -> Any:  # noqa: ANN401
        """Write rows to `out`; see `smallfry.Store.gather`."""
        ids = as_array(ids)
        if out is None:
            out = np.empty((*ids.shape, self.dim), np.float32)
        nbytes = getattr(out, "nbytes", 0)
        self.decoder.gather(ids, out, self.head_offsets, kernels.thread_count(threads, nbytes))
        return out

    def prefetch(self, ids: Any, path: str | os.PathLike[str] | None = None) -> Prefetch:  # noqa: ANN401
        """Start to read the pages of rows, mapped from a file at `path`; see `smallfry.Store.prefetch`."""
        return Prefetch(self, self.decoder.prefetch(as_array(ids), self.head_offsets), path)

    def gather_codes(self, ids: ArrayLike) -> NDArray[np.uint8]:
        """Return the packed rows of ``ids`` as uint8 ``[n, stride]``; zero bytes for id -1."""
        rows = as_ids(ids)
        out = np.empty((len(rows), self.stride), np.uint8)
        self.decoder.gather_codes(rows, out)
        return out

    def scales(self, ids: ArrayLike) -> NDArray[np.float16] | None:
        """Return the scales of the rows at ``ids``, float16 ``[n]``; None without scales, any for id -1."""
        rows = np.maximum(as_ids(ids), 0)
        if self.paging is not None:
            return self.paging.scales(np.asarray(self.codes, np.uint8), rows)
        return None if self.row_scale is None else self.row_scale[rows]

    def select(self, ids: ArrayLike) -> Table:
        """Return a table of the rows at ``ids``, in their order, which is not paged."""
        rows = as_ids(ids)
        codes = self.gather_codes(rows)
        scale = self.scales(rows)
        zero = np.isin(rows, self.zero_rows) if scale is None or self.paging is None else scale == 0
        return replace(
            self,
            codes=codes if self.codebook is not None else codes.view(np.float32),
            row_scale=scale,
            zero_rows=np.flatnonzero(zero).astype(np.uint32),
            paged_rows=None,
            head_offsets=None,
        )

    def unpaged(self) -> Table:
        """Return the table with contiguous codes, a copy if it is paged."""
        if self.paged_rows is None:
            return self
        with sequential(self.codes):
            return self.select(np.arange(self.rows))

    def paged(self, head_offsets: ArrayLike | None = None) -> Table:
        """Return a paged copy of the table.

        Parameters
        ----------
        head_offsets : array of integers, shape [heads + 1], optional
            Where the rows of each head begin, and where the last end: ids of `gather` are then local to one.

        Raises
        ------
        InputError
            The table has 32 bits a value, or the offsets do not increase from 0 to the number of rows.
        """
        if head_offsets is not None:
            offsets = np.asarray(head_offsets)
            check_heads(offsets, self.rows)
            return replace(self.paged(), head_offsets=offsets.astype(np.uint64))
        if self.paged_rows is not None:
            return self
        if self.codebook is None:
            raise InputError("a table of 32 bits a value cannot be paged. Use 16 bits or fewer.")
        paging = Paging(self.rows, self.stride)
        scale = np.ones(self.rows, np.float16) if self.row_scale is None else self.row_scale.copy()
        scale[self.zero_rows] = 0
        blocks = np.zeros(paging.shape, np.uint8)
        paging.fill(blocks, 0, np.asarray(self.codes, np.uint8), scale)
        return replace(
            self, codes=blocks, row_scale=None, zero_rows=np.empty(0, np.uint32), paged_rows=self.rows
        )

    def bag(
        self,
        ids: ArrayLike,
        offsets: ArrayLike,
        mode: Literal["sum", "mean", "max"] = "sum",
        weights: ArrayLike | None = None,
        *,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Pool rows into bags without decoding them to an ``[n, dim]`` array first.

        Parameters
        ----------
        ids : array of integers, shape [n]
            Row numbers of all bags, concatenated; -1 is skipped.
        offsets : array of integers, shape [bags]
            Where each bag starts in ``ids``; the last ends with ``ids``.
        mode : {"sum", "mean", "max"}
            Sums are computed in float32 in the order of ``ids``; the mean is over the ids not skipped.
        weights : array of float, shape [n], optional
            Factor of each id, for sums.
        threads : int, optional
            As for `decode`.

        Returns
        -------
        ndarray of float32, shape [bags, dim]
            Zeros for a bag without ids.
        """
        if mode not in ("sum", "mean", "max"):
            raise InputError(f"mode is {mode!r}, expected 'sum', 'mean' or 'max'")
        rows = as_ids(ids)
        starts = np.ascontiguousarray(offsets, np.int64)
        if starts.ndim != 1:
            raise InputError(f"offsets have shape {list(starts.shape)}, expected one dimension")
        factors = None if weights is None else np.ascontiguousarray(weights, np.float32)
        if factors is not None and mode != "sum":
            raise InputError(f"weights need mode 'sum', not {mode!r}")
        if factors is not None and factors.shape != rows.shape:
            raise InputError(
                f"weights have shape {list(factors.shape)}, ids {list(rows.shape)}; give one for each id"
            )
        out = np.empty((len(starts), self.dim), np.float32)
        nbytes = 4 * self.dim * len(rows)
        self.decoder.bag(rows, starts, factors, mode, -1, out, kernels.thread_count(threads, nbytes))
        return out

    def verify_shapes(self) -> None:
        """Check that the arrays fit together.

        Raises
        ------
        InputError
            The message names the array, its dtype and shape, and the expected ones.
        """
        if self.nbit not in NBITS:
            raise InputError(f"nbit is {self.nbit}, expected one of {', '.join(map(str, NBITS))}")
        if self.nbit not in KINDS.get(self.codebook_kind, ()):
            known = ", ".join(kind for kind, widths in KINDS.items() if self.nbit in widths)
            raise InputError(
                f"codebook kind is {self.codebook_kind!r}, expected one of {known} at nbit {self.nbit}"
            )
        if self.dim < 1:
            raise InputError(f"dim is {self.dim}, expected 1 or more")
        if self.paging is not None:
            self._verify_paged()
        if self.codebook_kind == "float":
            _expect("codes", self.codes, np.float32, (self.rows, self.dim))
        else:
            shape = (self.rows, self.stride) if self.paging is None else self.paging.shape
            _expect("codes", self.codes, np.uint8, shape)
            is_trellis = self.codebook_kind == "trellis"
            size = self.codebook.size if is_trellis and self.codebook is not None else 2**self.nbit
            _expect("codebook", self.codebook, np.float32, (size,))
            if is_trellis:
                check_trellis(size, self.dim, self.nbit)
        if self.mean is not None:
            _expect("mean", self.mean, np.float32, (self.dim,))
        if self.column_scale is not None:
            _expect("column_scale", self.column_scale, np.float32, (self.dim,))
        if self.row_scale is not None:
            _expect("row_scale", self.row_scale, np.float16, (self.rows,))
        check_zero_rows(self.zero_rows, self.rows)
        if self.rotation is not None:
            _expect("rotation", self.rotation, np.float32, (self.dim, self.dim))
        for name in ("column_scale", "rotation"):
            if getattr(self, name) is not None and self.codebook_kind != "trellis":
                raise InputError(f"a {self.codebook_kind} table has {name}, expected a trellis one")
        if self.head_offsets is not None:
            _expect("head_offsets", self.head_offsets, np.uint64, (self.head_offsets.size,))
            check_heads(self.head_offsets, self.rows)

    def _verify_paged(self) -> None:
        if self.codebook_kind == "float":
            raise InputError("a table of 32 bits a value is paged, expected 16 bits or fewer")
        if self.rows < 0:
            raise InputError(f"paged_rows is {self.rows}, expected a number of rows")
        if self.row_scale is not None or self.zero_rows.size:
            raise InputError(
                "a paged table has row_scale or zero_rows, expected none: scales are next to the codes"
            )

    @cached_property
    def decoder(self) -> Decoder:
        """The arrays in the form that the kernels read."""
        self.verify_shapes()
        return kernels.Decoder(
            self.codes,
            self.dim,
            self.nbit,
            self.codebook,
            self.mean,
            self.column_scale,
            self.row_scale,
            self.zero_rows,
            self.paged_rows,
        )


def check_zero_rows(zero_rows: NDArray[np.uint32], rows: int) -> None:
    """Raise InputError unless `zero_rows` are strictly increasing numbers of rows of a table of `rows`."""
    _expect("zero_rows", zero_rows, np.uint32, (zero_rows.size,))
    if not zero_rows.size:
        return
    if (zero_rows[1:] <= zero_rows[:-1]).any():
        raise InputError("zero_rows is not strictly increasing")
    if zero_rows[-1] >= rows:
        raise InputError(f"zero_rows names row {zero_rows[-1]}, and the table has {rows} rows")


def check_trellis(values: int, dim: int, nbit: int) -> None:
    """Raise InputError unless rows of `dim` values can be coded by windows into a codebook of `values`."""
    if values not in (2**bits for bits in STATE_BITS):
        raise InputError(
            f"the trellis codebook has {values} values, expected a power of two from {2 ** STATE_BITS[0]} to "
            f"{2 ** STATE_BITS[-1]}."
        )
    if dim * nbit < values.bit_length() - 1:
        raise InputError(
            f"rows of {dim} values have {dim * nbit} bits at {nbit} bits a value; a trellis code of "
            f"{values} values needs {values.bit_length() - 1}. Use more bits, or a uniform codebook."
        )


def _expect(name: str, array: object, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} is {type(array).__name__}, expected an array of {dtype.__name__}")
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )
