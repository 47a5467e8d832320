"""How many nearest neighbours survive compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smallfry.evaluation.vectors import Vectors, blocks, unit
from smallfry.progress import Progress


def knn_overlap(
    original: Vectors,
    compressed: Vectors,
    *,
    queries: int = 1000,
    k: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> float:
    """Return the mean share of a row's `k` nearest rows (by cosine) that stay among the `k` nearest.

    Parameters
    ----------
    original, compressed : Vectors
        Of the same shape, row by row the same items.
    queries : int
        Rows asked, drawn with `seed`; all where there are fewer.
    k : int
        Neighbours of a row, itself not counted; fewer where there are not so many rows.
    """
    rows = original.shape[0]
    k = min(k, rows - 1)
    if k == 0:
        return 1.0
    asked = np.sort(np.random.default_rng(seed).choice(rows, min(queries, rows), replace=False))
    before = _nearest(original, asked, k, progress)
    after = _nearest(compressed, asked, k, progress)
    kept = sum(len(np.intersect1d(a, b)) for a, b in zip(before, after, strict=True))
    return kept / before.size


def _nearest(
    vectors: Vectors, asked: NDArray[np.int64], k: int, progress: Progress | None
) -> NDArray[np.int64]:
    """Return the row numbers ``[len(asked), k]`` of the nearest rows of each, in no order."""
    wanted = unit(vectors.take(asked))
    scores = np.full((len(asked), k), -np.inf, np.float32)
    nearest = np.full((len(asked), k), -1, np.int64)
    for ids in blocks(vectors.shape[0], "neighbours", progress):
        found = wanted @ unit(vectors.take(ids)).T
        own = (asked >= ids[0]) & (asked <= ids[-1])
        found[own, asked[own] - ids[0]] = -np.inf
        scores = np.concatenate([scores, found], axis=1)
        nearest = np.concatenate([nearest, np.broadcast_to(ids, found.shape)], axis=1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        nearest = np.take_along_axis(nearest, best, axis=1)
    return nearest
