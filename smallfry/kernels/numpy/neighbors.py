"""Search for the nearest rows with NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smallfry.kernels.numpy.decode import Decoder

_LANES = 8
# Values decoded at a time, which bounds the temporaries.
_BLOCK_VALUES = 1 << 20


def nearest(
    decoder: Decoder,
    query: NDArray[np.float32],
    k: int,
    exclude: int,
    threads: int,
    cancelled: bytearray,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the row numbers and cosines of the ``k`` rows nearest to a query, except row ``exclude``.

    Sorted by decreasing cosine, ties by row number. Sums run in float64, value ``j`` in lane ``j % 8``;
    cosines are rounded to float32 before they are compared. The search ends early, with an incomplete result,
    when another thread sets the byte `cancelled` to nonzero.
    """
    dim = len(query)
    target = query.astype(np.float64)
    length = np.sqrt(_dot(target[None], target))
    step = max(1, _BLOCK_VALUES // max(dim, _LANES))
    ids, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    for start in range(0, decoder.rows, step):
        if cancelled[0]:
            break
        block = np.arange(start, min(start + step, decoder.rows))
        decoded = np.empty((len(block), dim), np.float32)
        decoder.decode(block, decoded, None, threads)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            values = decoded.astype(np.float64)
            cosines = _dot(values, target) / (length * np.sqrt(_dot(values, values)))
        kept = np.isfinite(cosines) & (block != exclude)
        ids = np.concatenate([ids, block[kept]])
        scores = np.concatenate([scores, cosines[kept].astype(np.float32)])
        best = np.lexsort((ids, -scores))[:k]
        ids, scores = ids[best], scores[best]
    return ids, scores


def _dot(rows: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the dot product of each row with ``other``, summed in lanes."""
    products = rows * other
    lanes = np.zeros((len(products), _LANES))
    for start in range(0, products.shape[1], _LANES):
        block = products[:, start : start + _LANES]
        lanes[:, : block.shape[1]] += block
    halves = lanes[:, :4] + lanes[:, 4:]
    quarters = halves[:, :2] + halves[:, 2:]
    sums: NDArray[np.float64] = quarters[:, 0] + quarters[:, 1]
    return sums
