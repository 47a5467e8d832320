"""Compress a matrix to a table of 1 to 32 bits a value."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.progress import Progress
from smallfry.quantization.chunks import MatrixChunks
from smallfry.quantization.learned import quantize_learned
from smallfry.quantization.levels import quantize_plain
from smallfry.quantization.options import Options
from smallfry.table import Table


def quantize(
    X: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    clip: float | None = None,
    codebook: str = "uniform",
    center: bool = False,
    rotate: str | None = None,
    row_scale: bool = False,
    progress: Progress | None = None,
) -> Table:
    """Compress a matrix to ``nbit`` bits a value with the least squared error that uniform levels allow.

    A matrix with at most ``2**nbit`` distinct values is kept exactly: the values become the codebook. Rows of
    zeros decode to zeros. Other codebooks, ``center``, ``rotate`` and ``row_scale`` lower the error at the
    same bit width.

    Parameters
    ----------
    X : ndarray of any float dtype, shape [rows, dim], or MatrixChunks
        Read in several passes and converted to float32 in chunks; not modified.
    nbit : int
        1, 2, 4, 8, 16 or 32.
    rounding, seed, clip, codebook, center, rotate, row_scale
        See `smallfry.quantization.options.Options`; `codebook` is its ``codebook_kind``. The same seed gives
        the same table.
    progress : callable, optional
        Called as ``progress(stage, rows_done, rows)`` after each chunk of each pass over the matrix; the
        stages are "scan", "clip" (several passes) and "encode", and with learned options "mean", "fit" and
        "measure".

    Returns
    -------
    Table

    Raises
    ------
    NonFiniteError
        The matrix holds NaN or infinity.
    InputError
        The matrix or an option is invalid.
    """
    return quantize_matrix(
        X, nbit, Options(codebook, center, rotate, row_scale, seed, rounding, clip), progress
    )


def quantize_matrix(
    X: NDArray[np.floating[Any]] | MatrixChunks, nbit: int, options: Options, progress: Progress | None = None
) -> Table:
    """Compress a matrix as `quantize`, with all options in one object."""
    options.check(nbit)
    compress = quantize_plain if options.plain else quantize_learned
    return compress(X, nbit, options, progress)
