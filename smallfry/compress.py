"""Compress a matrix to a table of 1 to 32 bits a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError, NonFiniteError
from smallfry.table import NBITS, Table

#: Called with the name of the pass ("scan", "clip", "encode"), the rows it has done and the rows in all.
Progress = Callable[[str, int, int], None]


class MatrixChunks(Protocol):
    """A matrix too large to hold: its shape, and its rows in order as often as it is iterated."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 arrays ``[m, dim]``."""
        ...


def quantize(
    X: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    clip: float | None = None,
    progress: Progress | None = None,
) -> Table:
    """Compress a matrix to ``nbit`` bits a value with the least squared error that uniform levels allow.

    Parameters
    ----------
    X : ndarray of any float dtype, shape [rows, dim], or MatrixChunks
    nbit : int
        1, 2, 4, 8, 16 or 32.
    rounding : {"nearest", "stochastic"}
    seed : int
        Of stochastic rounding; the same seed gives the same table.
    clip : float, optional
        The bound of the levels, instead of the best one.
    progress : callable, optional

    Returns
    -------
    Table
    """
    if nbit not in NBITS:
        raise InputError(f"nbit is {nbit}, expected one of {', '.join(map(str, NBITS))}")
    X = np.concatenate(list(X)) if not isinstance(X, np.ndarray) else X
    if X.ndim != 2 or 0 in X.shape:
        raise InputError(f"the matrix has shape {list(X.shape)}, expected [rows, dim], both 1 or more")
    X = X.astype(np.float32)
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise NonFiniteError(f"the matrix holds {X[row, column]} at row {row}, column {column}")
    dim = X.shape[1]
    if nbit == 32:
        return Table(X, dim, 32, "float", None, float(np.abs(X).max()))
    zeros = ~X.any(axis=1)
    values = np.unique(X[~zeros])
    if len(values) <= 2**nbit:
        values = values if len(values) else np.zeros(1, np.float32)
        codebook = np.concatenate([values, np.full(2**nbit - len(values), values[-1])])
        codes = kernels.pack(np.searchsorted(values, X).clip(max=len(values) - 1).astype(np.uint16), nbit)
        listed = np.flatnonzero(zeros) if 0.0 not in values else np.empty(0)
        return Table(
            codes,
            dim,
            nbit,
            "given",
            codebook,
            float(np.abs(values).max()),
            zero_rows=listed.astype(np.uint32),
        )
    top = 2**nbit - 1
    norm = float(np.square(X, dtype=np.float64).sum())
    best = (np.inf, 0.0)
    for r in [clip] if clip is not None else np.abs(X).max() * np.linspace(1 / 64, 1, 64):
        step = np.float32(2 * r / top)
        levels = ((np.arange(2**nbit) - top / 2) * step).astype(np.float32)
        k = np.clip(np.rint(X / np.float64(step) + top / 2), 0, top).astype(np.uint16)
        error = float(np.square(X[~zeros] - levels[k[~zeros]], dtype=np.float64).sum())
        best = min(best, (error, float(step)))
    step = np.float32(best[1])
    levels = ((np.arange(2**nbit) - top / 2) * step).astype(np.float32)
    k = np.clip(np.rint(X / np.float64(step) + top / 2), 0, top).astype(np.uint16)
    return Table(
        kernels.pack(k, nbit),
        dim,
        nbit,
        "uniform",
        levels,
        float(step) * top / 2,
        zero_rows=np.flatnonzero(zeros).astype(np.uint32),
        frobenius_error=(best[0] / norm) ** 0.5,
    )
