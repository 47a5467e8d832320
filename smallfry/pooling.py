"""Bags of rows made one vector each: the one way in which server and client pool."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.offsets import offsets_of
from smallfry.table import Table

Pool = Literal["mean", "sum"]
POOLS: tuple[Pool, ...] = ("mean", "sum")


def pool_bags(
    table: Table,
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    pool: Pool,
    *,
    fill: NDArray[np.float32] | None = None,
    skip: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the sum or mean of each bag's rows, added up in float32 in order.

    Unknown tokens come last, as what they get: nothing, zeros, or the fill.

    Parameters
    ----------
    table : Table
        Where the rows are.
    ids : ndarray of int64, shape [n]
        Row numbers of all bags, one bag after the other; -1 for an unknown token.
    offsets : ndarray of int64, shape [bags + 1]
        Where each bag begins in `ids`, and where the last one ends.
    pool : {"mean", "sum"}
    fill : ndarray of float32, shape [dim], optional
        The vector of an unknown token, where that is not zero.
    skip : bool
        Divide a mean by the number of known tokens rather than of all.

    Returns
    -------
    vectors : ndarray of float32, shape [bags, dim]
        Zeros for a bag without rows.
    found : ndarray of bool, shape [bags]
        Whether any token of the bag is known.
    """
    return finish_bags(table.bag(ids, offsets[:-1], "sum"), ids, offsets, pool, fill=fill, skip=skip)


def finish_bags(
    vectors: NDArray[np.float32],
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    pool: Pool,
    *,
    fill: NDArray[np.float32] | None = None,
    skip: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Make of the sums of known rows, in place, what `pool_bags` returns."""
    asked = np.diff(offsets)
    known = np.diff(offsets_of(ids >= 0)[offsets])
    if fill is not None:
        vectors += (asked - known).astype(np.float32)[:, None] * fill
    if pool == "mean":
        counted = known if skip else asked
        vectors /= np.maximum(counted, 1).astype(np.float32)[:, None]
    return vectors, known > 0
