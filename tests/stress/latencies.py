"""Quantiles of latencies: exact for one minute, to one percent for a long run."""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

#: Upper end of the first bin in seconds, and the ratio of each bin to the one before.
_SHORTEST, _RATIO = 1e-6, 1.01
_BINS = math.ceil(math.log(1e4 / _SHORTEST, _RATIO))


class Latencies:
    """Histogram of the latencies of a long run; each bin is one percent wider than the one before.

    Attributes
    ----------
    count : int
        Number of latencies.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self.count = 0

    def add(self, seconds: array[float]) -> None:
        """Count latencies."""
        bins = np.log(np.maximum(np.frombuffer(seconds), _SHORTEST) / _SHORTEST) / math.log(_RATIO)
        self._counts += np.bincount(np.minimum(bins.astype(np.int64), _BINS - 1), minlength=_BINS)
        self.count += len(seconds)

    def milliseconds(self) -> dict[str, float]:
        """Return median, 99th percentile and maximum; an empty dict if nothing was counted."""
        if not self.count:
            return {}
        ranks = np.array([0.5 * self.count, 0.99 * self.count, self.count])
        return _named(_SHORTEST * _RATIO ** (np.searchsorted(np.cumsum(self._counts), ranks) + 0.5))


def milliseconds(seconds: array[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum of latencies; an empty dict if there are none."""
    return _named(np.quantile(np.frombuffer(seconds), (0.5, 0.99, 1))) if seconds else {}


def _named(seconds: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("p50", "p99", "max"), np.round(1e3 * seconds, 2).tolist(), strict=True))
