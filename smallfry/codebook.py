"""Learned codebooks: the levels, or the values of each byte, that fit a matrix best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 1 << 16
_MAX_ROUNDS = 2000
_TOLERANCE = 1e-9


def lloyd_max(values: NDArray[np.floating], levels: int) -> NDArray[np.float64]:
    """Return the levels of the best scalar quantizer for a sample of values.

    Starts from the levels that are best at a high rate (their density follows the cube root of the values')
    and alternates between nearest levels and means (Lloyd, 1957; Max, 1960) until the error falls no more.
    For log-concave densities, the normal among them, that is the global optimum (Fleischer, 1964).

    Parameters
    ----------
    values : ndarray of float, any shape
        Finite. Counted in 65,536 bins.
    levels : int
        At most 65,536.

    Returns
    -------
    ndarray of float64, shape [levels]
        Rising; equal levels where there are fewer distinct values.
    """
    counts, centres = _histogram(np.asarray(values, np.float64).ravel())
    if len(centres) <= levels:
        return np.concatenate([centres, np.full(levels - len(centres), centres[-1])])
    below = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * centres)])
    square = float(counts @ np.square(centres))
    chosen = _compander(counts, centres, levels)
    error = np.inf
    for _ in range(_MAX_ROUNDS):
        edges = np.searchsorted(centres, (chosen[1:] + chosen[:-1]) / 2)
        cuts = np.concatenate([[0], edges, [len(centres)]])
        weight, total = np.diff(below[cuts]), np.diff(moment[cuts])
        chosen = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), chosen)
        previous, error = error, square - float(np.sum(total * chosen))
        if not error < previous * (1 - _TOLERANCE):
            break
    return chosen


def _histogram(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return count and mean of the values in each bin that holds any."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([float(len(values))]), np.array([low])
    bins = np.minimum(((values - low) * (_BINS / (high - low))).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS).astype(np.float64)
    sums = np.bincount(bins, weights=values, minlength=_BINS)
    filled = counts > 0
    return counts[filled], sums[filled] / counts[filled]


def _compander(counts: NDArray[np.float64], centres: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Return levels of density proportional to the cube root of the values' density."""
    width = np.gradient(centres)
    mass = np.cumsum(np.cbrt(counts / width) * width)
    return np.asarray(np.interp((np.arange(levels) + 0.5) / levels * mass[-1], mass, centres))
