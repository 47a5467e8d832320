"""The optimal scalar quantizer, the reference that compression is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 1 << 16
_MAX_ROUNDS = 2000
_TOLERANCE = 1e-9


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
