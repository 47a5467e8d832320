"""How long answers took: their quantiles, of one minute exactly, of a whole run to a hundredth."""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

#: The least time that is told from others, in seconds, and the ratio of each class to the one before.
_LEAST, _RATIO = 1e-6, 1.01
_CLASSES = math.ceil(math.log(1e4 / _LEAST, _RATIO))


class Latencies:
    """Times of a long run, counted by classes that are each a hundredth wider than the one before.

    Attributes
    ----------
    count : int
        How many there are.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_CLASSES, np.int64)
        self.count = 0

    def add(self, seconds: array[float]) -> None:
        """Count times."""
        classes = np.log(np.maximum(np.frombuffer(seconds), _LEAST) / _LEAST) / math.log(_RATIO)
        self._counts += np.bincount(np.minimum(classes.astype(np.int64), _CLASSES - 1), minlength=_CLASSES)
        self.count += len(seconds)

    def milliseconds(self) -> dict[str, float]:
        """Return median, 99th percentile and maximum; nothing where there are no times."""
        if not self.count:
            return {}
        ranks = np.array([0.5 * self.count, 0.99 * self.count, self.count])
        return _named(_LEAST * _RATIO ** (np.searchsorted(np.cumsum(self._counts), ranks) + 0.5))


def milliseconds(seconds: array[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum of times; nothing where there are none."""
    return _named(np.quantile(np.frombuffer(seconds), (0.5, 0.99, 1))) if seconds else {}


def _named(seconds: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("p50", "p99", "max"), np.round(1e3 * seconds, 2).tolist(), strict=True))
