"""Overlap of nearest neighbors before and after compression."""

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
    """Return the mean share of a row's `k` nearest rows by cosine that remain among the `k` nearest.

    Parameters
    ----------
    queries : int
        Number of query rows, drawn with `seed`; at most all rows.
    k : int
        Neighbors of a row, without itself; at most all other rows.
    """
    rows = original.shape[0]
    k = min(k, rows - 1)
    if k == 0:
        return 1.0
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(queries, rows), replace=False))
    before = _nearest(original, chosen, k, progress)
    after = _nearest(compressed, chosen, k, progress)
    kept = sum(len(np.intersect1d(a, b)) for a, b in zip(before, after, strict=True))
    return kept / before.size


def _nearest(
    vectors: Vectors, queries: NDArray[np.int64], k: int, progress: Progress | None
) -> NDArray[np.int64]:
    """Return the nearest rows ``[len(queries), k]`` of each query row, in no order."""
    targets = unit(vectors.take(queries))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    nearest = np.full((len(queries), k), -1, np.int64)
    for ids in blocks(vectors.shape, "neighbors", progress):
        found = targets @ unit(vectors.take(ids)).T
        own = (queries >= ids[0]) & (queries <= ids[-1])
        found[own, queries[own] - ids[0]] = -np.inf
        scores = np.concatenate([scores, found], axis=1)
        nearest = np.concatenate([nearest, np.broadcast_to(ids, found.shape)], axis=1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        nearest = np.take_along_axis(nearest, best, axis=1)
    return nearest
