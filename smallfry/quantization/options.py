"""Quantization options, and the choice of the bit width by error or by size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smallfry.errors import InputError
from smallfry.quantization.codebooks import CENTROIDS
from smallfry.quantization.rotation import KINDS as ROTATIONS
from smallfry.table import NBITS, Table

CODEBOOKS = ("uniform", "lloyd", "grouped")
ROUNDINGS = ("nearest", "stochastic")

_MAX_CLIP = np.finfo(np.float32).max


@dataclass(frozen=True)
class Options:
    """How to quantize a matrix, apart from the bit width.

    Attributes
    ----------
    codebook_kind : {"uniform", "lloyd", "grouped"}
        ``"lloyd"``: the best levels for single values. ``"grouped"``: the best values of each byte, at 1, 2
        and 4 bits (product quantization with one shared codebook).
    center : bool
        Subtract the mean row, which decoding adds back.
    rotate : {"orthogonal", "hadamard", "principal"}, optional
        Rotate the columns; ``"principal"`` needs a grouped codebook. Vectors stay in the rotated basis, where
        dot products and distances are unchanged.
    row_scale : bool
        Store a float16 scale for each row.
    seed : int
        Seed of the rotation, the sample that the codebook is fitted to, and stochastic rounding.
    rounding : {"nearest", "stochastic"}
        Stochastic: up or down at random, so that the expected value is the input, within the clip.
    clip : float, optional
        Bound of uniform levels; by default the one with the least squared error.
    """

    codebook_kind: str = "uniform"
    center: bool = False
    rotate: str | None = None
    row_scale: bool = False
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
        if self.plain:
            return NBITS
        return {"lloyd": (1, 2, 4, 8), "grouped": (1, 2, 4)}.get(self.codebook_kind, NBITS[:-1])

    def check(self, nbit: int) -> None:
        """Raise InputError if the options contradict each other or do not support `nbit`."""
        for name, value, choices in (
            ("nbit", nbit, NBITS),
            ("rounding", self.rounding, ROUNDINGS),
            ("codebook", self.codebook_kind, CODEBOOKS),
            ("rotate", self.rotate, (None, *ROTATIONS)),
        ):
            if value not in choices:
                names = ", ".join(str(choice) for choice in choices if choice is not None)
                raise InputError(f"{name} is {value!r}, expected one of {names}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}, expected 0 to 2**64 - 1")
        if self.clip is not None and not 0 < self.clip <= _MAX_CLIP:
            raise InputError(f"clip is {self.clip}, expected a number above 0, at most {_MAX_CLIP}")
        if self.rotate == "principal" and self.codebook_kind != "grouped":
            raise InputError(
                "rotate='principal' needs codebook='grouped'. With other codebooks use 'orthogonal'."
            )
        if not self.plain and nbit == 32:
            raise InputError("32 bits keep every value unchanged. Choose fewer bits, or omit the options.")
        if nbit not in self.nbits:
            nbits = ", ".join(map(str, self.nbits))
            raise InputError(f"a {self.codebook_kind} codebook supports {nbits} bits, not {nbit}")
        if self.codebook_kind != "uniform" and (self.rounding != "nearest" or self.clip is not None):
            raise InputError(f"rounding and clip need a uniform codebook, not a {self.codebook_kind} one")


def smallest_within_error(max_error: float, options: Options, compress: Callable[[int], Table]) -> Table:
    """Return the table of fewest bits whose relative Frobenius error is at most `max_error`.

    Parameters
    ----------
    max_error : float
    options : Options
        The options that `compress` uses.
    compress : callable
        Returns the table of a bit width.

    Raises
    ------
    InputError
        The error exceeds `max_error` at every width that the options support.
    """
    if not max_error >= 0:
        raise InputError(f"max_error is {max_error}, expected a number of at least 0")
    for nbit in options.nbits:
        table = compress(nbit)
        if table.frobenius_error <= max_error:
            return table
    raise InputError(
        f"the relative error is {table.frobenius_error:.4g} at {nbit} bits, the most that these options "
        f"support, and max_error is {max_error:g}. Raise it, or use other options."
    )


def largest_nbit_within(
    max_nbytes: int, rows: int, dim: int, vocabulary_nbytes: int, options: Options
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

    Raises
    ------
    InputError
        The tensors exceed `max_nbytes` at every width.
    """
    sizes = {nbit: vocabulary_nbytes + table_nbytes(rows, dim, nbit, options) for nbit in options.nbits}
    fitting = [nbit for nbit, size in sizes.items() if size <= max_nbytes]
    if not fitting:
        nbit, size = next(iter(sizes.items()))
        raise InputError(
            f"{rows:,} rows of {dim} values take {size:,} bytes with their vocabulary at {nbit} bits, "
            f"and the limit is {max_nbytes:,}. Raise it, or use fewer rows."
        )
    return fitting[-1]


def table_nbytes(rows: int, dim: int, nbit: int, options: Options) -> int:
    """Return the bytes of a table's tensors, without the list of zero rows."""
    grouped = options.codebook_kind == "grouped"
    codebook = CENTROIDS * 8 // nbit if grouped else 2**nbit if nbit < 32 else 0
    rotation = dim * dim if options.rotate == "principal" else 0
    floats = codebook + rotation + (dim if options.center else 0)
    return rows * -(-dim * nbit // 8) + 4 * floats + (2 * rows if options.row_scale else 0)
