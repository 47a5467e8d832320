"""The nearest rows of a packed matrix, by cosine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.table import Table, thread_count


class Neighbor(NamedTuple):
    """A row near to another.

    Attributes
    ----------
    token : str or None
        Its token; None where there is no vocabulary.
    row : int
        Its number.
    score : float
        The cosine of the two, from 1 (same direction) to -1.
    """

    token: str | None
    row: int
    score: float


def nearest(
    table: Table, query: ArrayLike, k: int = 10, *, exclude: int | None = None, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the rows whose cosine with a query is greatest: exactly, in one pass over the packed codes.

    A few rows at a time are decoded, so that no float32 matrix is in memory. Products are exact and sums run
    in float64 in a fixed order; the cosine is rounded to float32, and then compared. The result is the same
    on every instruction set, for any number of threads, and without the native module.

    Parameters
    ----------
    table : Table
        The rows. Those that are exact zeros have no direction and are never neighbours.
    query : array of float, shape [dim]
        In the basis of the decoded rows, which a rotated table's `rotation` leads to.
    k : int
        How many; fewer are returned where there are not so many rows.
    exclude : int, optional
        A row to leave out: that of the query.
    threads : int, optional
        At most this many; small tables take one. See `smallfry.kernels.default_threads`.

    Returns
    -------
    ids : ndarray of int64, shape [n]
        Row numbers, the nearest first; of equal cosines, the lower row number first.
    scores : ndarray of float32, shape [n]
        Their cosines.

    Raises
    ------
    InputError
        The query has the wrong shape, is not finite or all zeros, or `k` is below 1.
    """
    vector = np.ascontiguousarray(query, np.float32)
    if vector.shape != (table.dim,):
        raise InputError(f"the query has shape {list(vector.shape)}, expected [{table.dim}]")
    if not np.isfinite(vector).all():
        at = int(np.argmin(np.isfinite(vector)))
        raise InputError(f"value {at} of the query is {vector[at]}, expected finite numbers")
    if not vector.any():
        raise InputError("the query is all zeros: it has no direction, and so nothing is near to it")
    if k < 1:
        raise InputError(f"k is {k}, expected 1 or more")
    threads = thread_count(threads, 4 * table.rows * table.dim)
    return kernels.nearest(table.decoder, vector, k, -1 if exclude is None else exclude, threads)
