"""A packed table as tensors, and its conversion from and to a `Table`."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.errors import InputError
from smallfry.table import NBITS, STATE_BITS, Table, check_trellis

PARTS = ("codes", "codebook", "mean", "column_scale", "row_scale", "zero_rows")
"""The tensors among the fields of `Packed`."""


class Packed(NamedTuple):
    """A packed table as tensors, in the argument order of the operators.

    Attributes
    ----------
    codes : Tensor of uint8, shape [rows, ceil(dim * nbit / 8)]
        At 32 bits the values, of a floating dtype and shape [rows, dim].
    codebook : Tensor, shape [2**nbit], trellis: [2**state_bits], or None
        Sets the output dtype. None at 32 bits.
    mean : Tensor of float32, shape [dim], or None
    column_scale : Tensor of float32, shape [dim], or None
        Only of trellis codes.
    row_scale : Tensor of float16, shape [rows], or None
    zero_rows : Tensor of int64, or None
        Rows of exact zeros, in increasing order.
    dim, nbit : int
    """

    codes: Tensor
    codebook: Tensor | None
    mean: Tensor | None
    column_scale: Tensor | None
    row_scale: Tensor | None
    zero_rows: Tensor | None
    dim: int
    nbit: int

    @classmethod
    def empty(
        cls,
        rows: int,
        dim: int,
        nbit: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Packed:
        """Return a table of zeros; at 3 bits, which only trellis codes have, one of 256 values."""
        if rows < 0 or dim < 1:
            raise InputError(f"the table has {rows} rows × {dim} values; expected 0 or more × 1 or more")
        if nbit == 32:
            values = torch.zeros(rows, dim, device=device, dtype=dtype)
            return cls(values, None, None, None, None, None, dim, nbit)
        codes = torch.zeros(rows, -(-dim * nbit // 8), device=device, dtype=torch.uint8)
        size = 2**nbit if nbit != 3 else 2 ** STATE_BITS[0]
        if nbit == 3:
            check_trellis(size, dim, nbit)
        codebook = torch.zeros(size, device=device, dtype=dtype)
        return cls(codes, codebook, None, None, None, None, dim, nbit)

    @classmethod
    def from_table(cls, table: Table, dtype: torch.dtype = torch.float32) -> Packed:
        """Return the tensors of ``table``; they share its codes, which must be writable, unless paged."""
        table = table.unpaged()
        codes = torch.from_numpy(table.codes)
        return cls(
            codes=codes.to(dtype) if table.codebook is None else codes,
            codebook=None if table.codebook is None else _tensor(table.codebook).to(dtype),
            mean=None if table.mean is None else _tensor(table.mean),
            column_scale=None if table.column_scale is None else _tensor(table.column_scale),
            row_scale=None if table.row_scale is None else _tensor(table.row_scale),
            zero_rows=_tensor(table.zero_rows.astype(np.int64)) if table.zero_rows.size else None,
            dim=table.dim,
            nbit=table.nbit,
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.codes.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the output: that of the codebook; at 32 bits that of the values."""
        return self.codes.dtype if self.codebook is None else self.codebook.dtype

    @property
    def plain(self) -> bool:
        """Whether `codes` are the values: 32 bits, and no other tensors."""
        return self.codebook is self.mean is self.row_scale is self.zero_rows is None

    def to(self, device: torch.device | str | None) -> Packed:
        """Return the table on another device; None means its own."""
        if device is None:
            return self
        return self._replace(
            **{name: part.to(device) for name in PARTS if (part := getattr(self, name)) is not None}
        )

    def astype(self, dtype: torch.dtype) -> Packed:
        """Return the table with another output dtype."""
        if self.codebook is None:
            return self._replace(codes=self.codes.to(dtype))
        return self._replace(codebook=self.codebook.to(dtype))

    def to_table(self) -> Table:
        """Return a `Table` with the same values and a float32 codebook; it shares codes on CPU."""
        codebook = _array(self.codebook, torch.float32)
        codes = _array(self.codes, torch.float32 if codebook is None else torch.uint8)
        zero_rows = _array(self.zero_rows, torch.int64)
        assert codes is not None
        values = codes if codebook is None else codebook
        step = None if codebook is None or len(codebook) > 2**self.nbit else uniform_step(codebook)
        return Table(
            codes=codes,
            dim=self.dim,
            nbit=self.nbit,
            codebook_kind=_kind(codebook, step, self.nbit),
            codebook=codebook,
            clip=float(np.abs(values).max(initial=0)) if step is None else step * (2**self.nbit - 1) / 2,
            mean=_array(self.mean, torch.float32),
            column_scale=_array(self.column_scale, torch.float32),
            row_scale=_array(self.row_scale, torch.float16),
            zero_rows=np.empty(0, np.uint32) if zero_rows is None else zero_rows.astype(np.uint32),
        )


def checked_bits(nbit: Any) -> int:  # noqa: ANN401
    """Return the number of bits as an int, or raise InputError; NumPy integers are accepted."""
    try:
        bits = operator.index(nbit)
    except TypeError:
        bits = 0
    if bits not in NBITS:
        raise InputError(f"nbit is {nbit!r}, expected one of {', '.join(map(str, NBITS))}")
    return bits


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raise InputError unless the output dtype is floating."""
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"the dtype is {dtype}, but the output of a packed module is floating")


def uniform_step(codebook: NDArray[np.float32]) -> float | None:
    """Return the distance between levels of a uniform codebook, None for other codebooks."""
    if codebook[-1] <= 0:
        return None
    top = len(codebook) - 1
    positions = np.arange(len(codebook)) - top / 2
    # The last level is the rounded product of step and top / 2, so the step is the quotient or next to it.
    guess = np.float32(2 * float(codebook[-1]) / top)
    for step in (guess, np.nextafter(guess, np.float32(0)), np.nextafter(guess, np.float32(np.inf))):
        if np.array_equal((positions * float(step)).astype(np.float32), codebook):
            return float(step)
    return None


def _kind(codebook: NDArray[np.float32] | None, step: float | None, nbit: int) -> str:
    if codebook is None:
        return "float"
    if len(codebook) > 2**nbit:
        return "trellis"
    return "exact" if step is None else "uniform"


def _tensor(array: NDArray[Any]) -> Tensor:
    # Copied, because the array may be mapped. torch.tensor would obey ``with torch.device(…)``.
    return torch.from_numpy(array.copy())


def _array(tensor: Tensor | None, dtype: torch.dtype) -> NDArray[Any] | None:
    # Detached, because an array keeps its tensor alive, which must not be the module's buffer.
    return None if tensor is None else tensor.detach().to("cpu", dtype).numpy()
