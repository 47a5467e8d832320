"""Compress a matrix to a table of 1 to 32 bits a value."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.progress import Progress
from smallfry.quantization.chunks import Matrix, MatrixChunks
from smallfry.quantization.encoded import EncodedRows
from smallfry.quantization.levels import PlainEncoder, fit_levels
from smallfry.quantization.options import Options
from smallfry.quantization.transformed import TransformedEncoder
from smallfry.table import Table


def quantize(
    X: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    clip: float | None = None,
    codebook_kind: str = "uniform",
    center: bool = False,
    rotate: bool = False,
    row_scale: bool = False,
    trellis_state_bits: int = 8,
    progress: Progress | None = None,
) -> Table:
    """Compress a matrix to ``nbit`` bits a value with the least squared error that uniform levels allow.

    A matrix with at most ``2**nbit`` distinct values is kept exactly: the values become the codebook. Rows of
    zeros decode to zeros. A trellis codebook, ``center``, ``rotate`` and ``row_scale`` lower the error at the
    same bit width; `smallfry.BEST` combines them.

    Parameters
    ----------
    X : ndarray of any float dtype, shape [rows, dim], or MatrixChunks
        Read in several passes and converted to float32 in chunks; not modified.
    nbit : int
        1, 2, 3 (trellis only), 4, 8, 16 or 32.
    rounding, seed, clip, codebook_kind, center, rotate, row_scale, trellis_state_bits
        See `smallfry.quantization.options.Options`. The same seed gives the same table.
    progress : callable, optional
        Called as ``progress(stage, rows_done, rows)`` after each chunk of each pass over the matrix; the
        stages are "scan", "clip" (several passes) and "encode"; for a trellis codebook "scan" (unless a
        sample of rows is enough), "fit" (rounds instead of rows) and "encode".

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
        X,
        nbit,
        Options(codebook_kind, center, rotate, row_scale, trellis_state_bits, seed, rounding, clip),
        progress,
    )


def quantize_matrix(
    X: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    options: Options,
    progress: Progress | None = None,
    *,
    paged: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> Table:
    """Compress a matrix as `quantize`, with all options in one object.

    Parameters
    ----------
    paged : bool
        Make a paged table.
    folder : path, optional
        Folder of unnamed temporary files that hold the rows of the table; in memory by default.
    """
    options.check(nbit)
    matrix = Matrix(X, progress)
    encoder: PlainEncoder | TransformedEncoder
    if options.plain:
        encoder = PlainEncoder(fit_levels(matrix, nbit, options))
    else:
        encoder = TransformedEncoder(matrix, nbit, options, progress)
    with EncodedRows(encoder.table, matrix.rows, paged=paged, folder=folder) as rows:
        for first, chunk in matrix.chunks("encode"):
            rows.append(*encoder.encode(first, chunk))
        return rows.table(encoder.table)
