"""Vectors of bags of tokens, and their rounding to float16."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.offsets import offsets_of

Pool = Literal["mean", "sum"]
POOLS: tuple[Pool, ...] = ("mean", "sum")


def finish_bags(
    sums: NDArray[np.float32],
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    pool: Pool,
    *,
    fill: NDArray[np.float32] | None = None,
    skip: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Add unknown tokens to the sums of `smallfry.table.Table.bag` and divide them for means, in place.

    Parameters
    ----------
    sums : ndarray of float32, shape [bags, dim]
    ids : ndarray of int64, shape [n]
        Row numbers of all bags, concatenated; -1 for an unknown token.
    offsets : ndarray of int64, shape [bags + 1]
        Where each bag begins in `ids`, and where the last one ends.
    pool : {"mean", "sum"}
    fill : ndarray of float32, shape [dim], optional
        The vector of an unknown token, if not zeros.
    skip : bool
        Divide a mean by the number of known tokens instead of all.

    Returns
    -------
    vectors : ndarray of float32, shape [bags, dim]
        Zeros for a bag without rows.
    found : ndarray of bool, shape [bags]
        Whether any token of the bag is known.
    """
    sizes = np.diff(offsets)
    known = np.diff(offsets_of(ids >= 0)[offsets])
    if fill is not None:
        sums += (sizes - known).astype(np.float32)[:, None] * fill
    if pool == "mean":
        sums /= np.maximum(known if skip else sizes, 1).astype(np.float32)[:, None]
    return sums, known > 0


def to_float16(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round vectors to float16.

    Raises
    ------
    InputError
        A value exceeds float16.
    """
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(f"the vectors reach {np.abs(vectors).max():g}, float16 only 65504; ask for float32")
    return half
