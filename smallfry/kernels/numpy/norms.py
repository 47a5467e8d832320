"""The lengths of rows, and rows divided by them, with NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LANES = 8


def squared_norms(
    x: NDArray[np.float32], other: NDArray[np.float32] | None, out: NDArray[np.float64], threads: int
) -> None:
    """Write the sum of the squares of each row of ``x`` [rows, dim], or of ``x - other``, to ``out`` [rows].

    The difference is rounded to float32; squares and sums are float64, in the order of the vector units: in
    eight partial sums, one for each position modulo 8, added up as a tree.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        values = (x if other is None else x - other).astype(np.float64)
        rows, dim = values.shape
        padded = np.zeros((-(-dim // _LANES), _LANES, rows))
        padded.reshape(-1, rows)[:dim] = np.square(values).T
        lanes = np.add.reduce(padded, axis=0)
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        out[:] = lanes[0]


def divide_rows(
    x: NDArray[np.float32], divisors: NDArray[np.float64], out: NDArray[np.float32], threads: int
) -> None:
    """Write each row of ``x`` [rows, dim] over its divisor to ``out``, divided in float64."""
    np.divide(x, divisors[:, None], out=out, dtype=np.float64, casting="same_kind")
