"""Nearest rows of a table by cosine similarity, exact."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.pages import sequential
from smallfry.table import Table


class Neighbor(NamedTuple):
    """A row that is near to a query.

    Attributes
    ----------
    token : str or None
        The token of the row; None without a vocabulary.
    row : int
        The row number.
    score : float
        The cosine of row and query, from 1 (same direction) to -1.
    """

    token: str | None
    row: int
    score: float


def nearest(
    table: Table,
    query: ArrayLike,
    k: int = 10,
    *,
    exclude: int | None = None,
    threads: int | None = None,
    cancelled: bytearray | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the rows with the greatest cosine to a query, in one pass over the packed codes.

    Rows are decoded a few at a time, without a float32 matrix in memory. Products are exact, sums are
    computed in float64 in a fixed order, and cosines are rounded to float32 before they are compared. The
    result is the same on every instruction set, for any number of threads, and without the native module.

    Parameters
    ----------
    table : Table
        Rows of zeros have no direction and are never neighbors.
    query : array of float, shape [dim]
        In the basis of the decoded rows, which the `rotation` of a table leads to.
    k : int
        Number of neighbors; fewer are returned if the table has fewer rows.
    exclude : int, optional
        A row to leave out: that of the query.
    threads : int, optional
        Maximum number of threads; small tables use one. See `smallfry.kernels.default_threads`.
    cancelled : bytearray of length 1, optional
        Another thread ends the search by setting it to nonzero.

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
    CancelledError
        The search was cancelled.
    """
    vector = np.ascontiguousarray(query, np.float32)
    if vector.shape != (table.dim,):
        raise InputError(f"the query has shape {list(vector.shape)}, expected [{table.dim}]")
    if not np.isfinite(vector).all():
        at = int(np.argmin(np.isfinite(vector)))
        raise InputError(f"value {at} of the query is {vector[at]}, expected finite numbers")
    if not vector.any():
        raise InputError("the query is all zeros, and so has no direction")
    if k < 1:
        raise InputError(f"k is {k}, expected 1 or more")
    threads = kernels.thread_count(threads, 4 * table.rows * table.dim)
    flag = bytearray(1) if cancelled is None else cancelled
    with sequential(table.codes):
        found = kernels.nearest(table.decoder, vector, k, -1 if exclude is None else exclude, threads, flag)
    if flag[0]:
        raise CancelledError
    return found
