"""Quantization options, and the choice of the bit width by error or by size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallfry.errors import InputError
from smallfry.paging import Paging
from smallfry.table import KINDS, NBITS, Table, check_trellis

CODEBOOK_KINDS = ("uniform", "trellis")
TRELLIS_STATE_BITS = (8, 12)
ROUNDINGS = ("nearest", "stochastic")

BEST: dict[str, Any] = {
    "codebook_kind": "trellis",
    "trellis_state_bits": 12,
    "center": True,
    "rotate": True,
    "row_scale": True,
}
"""The options with the smallest error at 1 to 4 bits, for ``quantize(X, nbit, **BEST)``."""

_MAX_CLIP = np.finfo(np.float32).max


@dataclass(frozen=True)
class Options:
    """How to quantize a matrix, apart from the bit width.

    Attributes
    ----------
    codebook_kind : {"uniform", "trellis"}
        ``"trellis"``: learned values, each selected by more bits than its own, at 1 to 4 bits (trellis-coded
        quantization: Marcellin and Fischer, 1990).
    center : bool
        Subtract the mean row, which decoding adds back.
    rotate : bool
        Rotate the columns to the principal basis of the rows; needs a trellis codebook. Vectors stay in this
        basis, where dot products and distances are unchanged.
    row_scale : bool
        Store a float16 scale for each row.
    trellis_state_bits : {8, 12}
        Bits that select a value of a trellis code. With 12 the error is smaller, and compression takes 16
        times as long.
    seed : int
        Seed of the rotation, the sample that the codebook is fitted to, and stochastic rounding.
    rounding : {"nearest", "stochastic"}
        Stochastic: up or down at random, so that the expected value is the input, within the clip.
    clip : float, optional
        Bound of uniform levels; by default the one with the least squared error.
    """

    codebook_kind: str = "uniform"
    center: bool = False
    rotate: bool = False
    row_scale: bool = False
    trellis_state_bits: int = 8
    seed: int = 0
    rounding: str = "nearest"
    clip: float | None = None

    @property
    def plain(self) -> bool:
        """Whether uniform levels encode the matrix as it is."""
        return self.codebook_kind == "uniform" and not (self.center or self.rotate or self.row_scale)

    @property
    def nbits(self) -> tuple[int, ...]:
        """Bit widths that these options support, in increasing order."""
        return KINDS[self.codebook_kind] + (KINDS["float"] if self.plain else ())

    def nbits_of(self, dim: int) -> tuple[int, ...]:
        """Return the bit widths that these options support for rows of `dim` values, or raise InputError."""
        if self.codebook_kind != "trellis":
            return self.nbits
        check_trellis(2**self.trellis_state_bits, dim, self.nbits[-1])
        return tuple(nbit for nbit in self.nbits if dim * nbit >= self.trellis_state_bits)

    def check(self, nbit: int) -> None:
        """Raise InputError if the options contradict each other or do not support `nbit`."""
        for name, value, choices in (
            ("nbit", nbit, NBITS),
            ("rounding", self.rounding, ROUNDINGS),
            ("codebook_kind", self.codebook_kind, CODEBOOK_KINDS),
            ("trellis_state_bits", self.trellis_state_bits, TRELLIS_STATE_BITS),
            ("rotate", self.rotate, (False, True)),
        ):
            if value not in choices:
                names = ", ".join(map(str, choices))
                raise InputError(f"{name} is {value!r}, expected one of {names}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}, expected 0 to 2**64 - 1")
        if self.clip is not None and not 0 < self.clip <= _MAX_CLIP:
            raise InputError(f"clip is {self.clip}, expected a number above 0, at most {_MAX_CLIP}")
        if self.codebook_kind != "trellis" and (self.rotate or self.trellis_state_bits != 8):
            raise InputError(
                "rotate and trellis_state_bits need a trellis codebook (codebook_kind 'trellis')"
            )
        if self.codebook_kind == "uniform" and nbit == 3:
            raise InputError(
                "3 bits need a trellis codebook (codebook_kind 'trellis'). Choose it, or other bits."
            )
        if not self.plain and nbit == 32:
            raise InputError("32 bits keep every value unchanged. Choose fewer bits, or omit the options.")
        if nbit not in self.nbits:
            nbits = ", ".join(map(str, self.nbits))
            raise InputError(f"a {self.codebook_kind} codebook supports {nbits} bits, not {nbit}")
        if self.codebook_kind != "uniform" and (self.rounding != "nearest" or self.clip is not None):
            raise InputError(f"rounding and clip need a uniform codebook, not a {self.codebook_kind} one")


def smallest_within_error(
    max_error: float, dim: int, options: Options, compress: Callable[[int], Table]
) -> Table:
    """Return the table of fewest bits whose relative Frobenius error is at most `max_error`.

    Parameters
    ----------
    max_error : float
    dim : int
        Values of a row.
    options : Options
        The options that `compress` uses.
    compress : callable
        Returns the table of a bit width.

    Raises
    ------
    InputError
        The error exceeds `max_error` at every width that the options support for such rows.
    """
    if not max_error >= 0:
        raise InputError(f"max_error is {max_error}, expected a number of at least 0")
    for nbit in options.nbits_of(dim):
        table = compress(nbit)
        if table.frobenius_error <= max_error:
            return table
    raise InputError(
        f"the relative error is {table.frobenius_error:.4g} at {nbit} bits, the most that these options "
        f"support, and max_error is {max_error:g}. Raise it, or use other options."
    )


def largest_nbit_within(
    max_nbytes: int, rows: int, dim: int, vocabulary_nbytes: int, options: Options, *, paged: bool = False
) -> int:
    """Return the largest bit width at which the tensors take at most `max_nbytes`.

    Parameters
    ----------
    max_nbytes : int
    rows, dim : int
        Shape of the matrix.
    vocabulary_nbytes : int
        Bytes of the tokens and their index.
    options : Options
    paged : bool
        Whether the table is paged.

    Raises
    ------
    InputError
        The tensors exceed `max_nbytes` at every width.
    """
    sizes = {
        nbit: vocabulary_nbytes + table_nbytes(rows, dim, nbit, options, paged=paged)
        for nbit in options.nbits_of(dim)
        if not (paged and nbit == 32)
    }
    fitting = [nbit for nbit, size in sizes.items() if size <= max_nbytes]
    if not fitting:
        nbit, size = next(iter(sizes.items()))
        raise InputError(
            f"{rows:,} rows of {dim} values take {size:,} bytes with their vocabulary at {nbit} bits, "
            f"and the limit is {max_nbytes:,}. Raise it, or use fewer rows."
        )
    return fitting[-1]


def table_nbytes(rows: int, dim: int, nbit: int, options: Options, *, paged: bool = False) -> int:
    """Return the bytes of a table's tensors, without the list of zero rows."""
    codebook = 2**nbit if nbit < 32 else 0
    if options.codebook_kind == "trellis":
        codebook = 2**options.trellis_state_bits + dim
    rotation = dim * dim if options.rotate else 0
    floats = 4 * (codebook + rotation + (dim if options.center else 0))
    stride = -(-dim * nbit // 8)
    if paged:
        return math.prod(Paging(rows, stride).shape) + floats
    return rows * stride + floats + (2 * rows if options.row_scale else 0)
