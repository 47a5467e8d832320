"""Learned codebooks: Lloyd-Max levels for single values, k-means centroids for groups of values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.progress import Progress

CENTROIDS = 256
"""Rows of a grouped codebook, one for each byte."""

_BINS = 1 << 16
_MAX_ROUNDS = 2000
_TOLERANCE = 1e-9

_GROUPED_ROUNDS = 60
_GROUPED_TOLERANCE = 2e-5
_SPLIT = np.float32(0.01)


def uniform_levels(clip: float, nbit: int) -> NDArray[np.float32]:
    """Return ``2**nbit`` evenly spaced levels from -clip to clip, as the ``.sfq`` format defines them."""
    top = 2**nbit - 1
    step = np.float32(2 * clip / top)
    levels = (np.arange(top + 1) - top / 2) * np.float64(step)
    return np.asarray(levels.astype(np.float32))


def lloyd_max(values: NDArray[np.floating], levels: int) -> NDArray[np.float64]:
    """Return the levels of the optimal scalar quantizer for a sample of values.

    Starts from the optimal high-rate levels, whose density is proportional to the cube root of that of the
    values, and alternates between nearest levels and means (Lloyd, 1957; Max, 1960) until convergence.
    For log-concave densities such as the normal, the result is the global optimum (Fleischer, 1964).

    Parameters
    ----------
    values : ndarray of float, any shape
        Finite. Quantized through a histogram of 65,536 bins.
    levels : int
        At most 65,536.

    Returns
    -------
    ndarray of float64, shape [levels]
        In increasing order; the last is repeated if there are fewer distinct values.
    """
    counts, centers = _histogram(np.asarray(values, np.float64).ravel())
    if len(centers) <= levels:
        return np.concatenate([centers, np.full(levels - len(centers), centers[-1])])
    below = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * centers)])
    square = float(counts @ np.square(centers))
    fitted = _compander(counts, centers, levels)
    error = np.inf
    for _ in range(_MAX_ROUNDS):
        edges = np.searchsorted(centers, (fitted[1:] + fitted[:-1]) / 2)
        cuts = np.concatenate([[0], edges, [len(centers)]])
        weight, total = np.diff(below[cuts]), np.diff(moment[cuts])
        fitted = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), fitted)
        previous, error = error, square - float(np.sum(total * fitted))
        if not error < previous * (1 - _TOLERANCE):
            break
    return fitted


def grouped(
    rows: NDArray[np.float32], group: int, seed: int, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Return the k-means centroids of the groups of a sample of rows (Lloyd, 1957).

    Starts from random groups of the sample, scaled to the optimal high-rate density: the power
    group / (group + 2) of that of the groups (Zador, 1982), for normal values.

    Parameters
    ----------
    rows : ndarray of float32, shape [n, dim]
        Finite. A shorter last group of a row is ignored unless it is the only one.
    group : int
        Adjacent values of a row that one byte encodes: 2, 4 or 8.
    seed : int
        Seed of the initial groups.
    progress : callable, optional
        Called with the stage "fit" and the rounds done.

    Returns
    -------
    ndarray of float32, shape [256, group]
    """
    points = _groups(rows, group)
    drawn = np.random.default_rng(seed).choice(len(points), CENTROIDS, replace=len(points) < CENTROIDS)
    centroids = points[drawn] * np.float32(np.sqrt((group + 2) / group))
    squares = float(np.square(points, dtype=np.float64).sum())
    error = np.inf
    for done in range(_GROUPED_ROUNDS):
        nearest = encode(points, centroids).ravel()
        centroids, gain = _means(points, nearest, centroids)
        previous, error = error, squares - gain
        if progress is not None:
            progress("fit", done + 1, _GROUPED_ROUNDS)
        if not error < previous * (1 - _GROUPED_TOLERANCE):
            break
    return centroids


def encode(rows: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the byte of the nearest row of a grouped codebook for each group of `rows` ``[n, dim]``."""
    codes = np.empty((len(rows), -(-rows.shape[1] // codebook.shape[1])), np.uint8)
    rows, codebook = np.ascontiguousarray(rows), np.ascontiguousarray(codebook)
    kernels.encode_groups(rows, codebook, codes, kernels.default_threads())
    return codes


def _groups(rows: NDArray[np.float32], group: int) -> NDArray[np.float32]:
    whole = rows.shape[1] // group * group
    if whole:
        return np.ascontiguousarray(rows[:, :whole]).reshape(-1, group)
    return np.pad(rows, ((0, 0), (0, group - rows.shape[1])))


def _means(
    points: NDArray[np.float32], nearest: NDArray[np.uint8], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Return the mean of each centroid's points, and how much these means lower the squared error of zeros.

    A centroid without points becomes a perturbed copy of one with the most points.
    """
    counts = np.bincount(nearest, minlength=CENTROIDS)
    sums = np.stack([np.bincount(nearest, column, CENTROIDS) for column in points.T], axis=1)
    filled = counts > 0
    moved = centroids.copy()
    moved[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
    gain = float(np.sum(np.square(sums[filled]) / counts[filled, None]))
    empty = np.flatnonzero(~filled)
    crowded = np.argsort(-counts, kind="stable")[: len(empty)]
    moved[empty] = moved[crowded] * (1 + _SPLIT)
    return moved, gain


def _histogram(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return count and mean of the values in each nonempty bin."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([float(len(values))]), np.array([low])
    bins = np.minimum(((values - low) * (_BINS / (high - low))).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS).astype(np.float64)
    sums = np.bincount(bins, weights=values, minlength=_BINS)
    filled = counts > 0
    return counts[filled], sums[filled] / counts[filled]


def _compander(counts: NDArray[np.float64], centers: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Return levels whose density is proportional to the cube root of that of the values."""
    width = np.gradient(centers)
    mass = np.cumsum(np.cbrt(counts / width) * width)
    return np.asarray(np.interp((np.arange(levels) + 0.5) / levels * mass[-1], mass, centers))
