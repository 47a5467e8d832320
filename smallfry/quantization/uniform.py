"""The step between uniform levels that minimizes the squared error, and so the clip.

With c the odd number that a value x rounds to in units of half a step h, the squared error is
``sum(x**2) - 2 * h * sum(|x| * |c|) + h**2 * sum(c**2)``: for fixed c a parabola with its minimum at
``h = sum(|x| * |c|) / sum(c**2)``, which is lower by ``sum(|x| * |c|)**2 / sum(c**2)``. c changes only where
some ``|x|`` crosses an even multiple of h. Small matrices are searched at all crossings, which finds the
global optimum. For large ones a histogram suggests steps; exact passes over the matrix choose between them
and descend to the nearest optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: Measures steps: float64 [n] to float64 [n, 3], the squared error, sum(|x| * |c|) and sum(c**2) of each.
Measure = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# Up to this many crossings are searched exhaustively.
_SWEEP_CROSSINGS = 1 << 20
# From this many levels, starting steps are computed for evenly distributed rounding errors.
_FINE_LEVELS = 64
# At most this many local optima of the histogram are measured, if their error is within this factor.
_MAX_STARTS, _NEAR_OPTIMAL = 8, 1.02
# Budget of values times steps measured at many levels, and the minimum and maximum number of steps.
_MEASURED_VALUES, _MIN_STEPS, _MAX_STEPS = 1 << 25, 5, 256
# Matrices of up to this many values also get a golden-section search.
_GOLDEN_VALUES = 1 << 24
# Maximum number of descent passes, and the relative decrease of the error that each must reach.
_MAX_DESCENTS, _MIN_DECREASE = 6, 1e-7
# Below this predicted relative decrease, the rounding of levels to float32 dominates.
_MIN_PREDICTED = 1e-9


@dataclass(frozen=True)
class Magnitudes:
    """The absolute values of a matrix: a histogram with the exact count and sum of each bin.

    Attributes
    ----------
    edges : ndarray of float64, shape [bins + 1]
    counts, totals : ndarray of float64, shape [bins]
    peak : float
        The largest absolute value.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    totals: NDArray[np.float64]
    peak: float

    @classmethod
    def from_bins(
        cls, counts: NDArray[np.int64], lows: NDArray[np.int64], zeros: int, peak: float
    ) -> Magnitudes:
        """Make the histogram from the counts of `smallfry.kernels.scan`, less ``zeros`` values of 0."""
        held = counts.copy()
        held[0] -= zeros
        occupied = np.flatnonzero(held)
        used = slice(int(occupied[0]), int(occupied[-1]) + 1)
        bits = np.arange(used.start, used.stop + 1, dtype=np.uint32) << np.uint32(15)
        bits[-1] = min(bits[-1], 0x7F7FFFFF)
        edges = bits.view(np.float32).astype(np.float64)
        spacing = np.spacing(bits[:-1].view(np.float32)).astype(np.float64)
        exact = held[used].astype(np.float64)
        totals = counts[used] * edges[:-1] + lows[used] * spacing
        return cls(edges, exact, totals, peak)

    @property
    def count(self) -> float:
        """Number of values."""
        return float(self.counts.sum())

    @cached_property
    def mean(self) -> float:
        """Mean absolute value."""
        return float(self.totals.sum()) / self.count

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """Sum of squares of each bin, within a relative error of 2**-16."""
        return np.divide(self.totals**2, np.maximum(self.counts, 1))

    def above(self, bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return count and sum of the values above each bound, assuming evenly spread values in a bin."""
        counts, totals = self._tails
        return np.interp(bounds, self.edges, counts), np.interp(bounds, self.edges, totals)

    @cached_property
    def _tails(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Count and sum of the values above each edge."""
        return _tail(self.counts), _tail(self.totals)


def optimal_step(
    magnitudes: Magnitudes, levels: int, measure: Measure, values: Callable[[], NDArray[np.float64]]
) -> float:
    """Return the step between ``levels`` levels around 0 that minimizes the squared error.

    Parameters
    ----------
    magnitudes : Magnitudes
        With a value other than 0.
    levels : int
        Even.
    measure : Measure
        Makes one pass over the matrix.
    values : callable
        Returns all absolute values, float64 [n]; only called for small matrices.
    """
    if levels == 2:
        return 2 * magnitudes.mean
    thresholds = levels // 2 - 1
    if magnitudes.count * thresholds <= _SWEEP_CROSSINGS:
        return _sweep(values(), thresholds)
    search = _Search(measure)
    if levels < _FINE_LEVELS:
        search.measure(_coarse_starts(magnitudes, levels))
    else:
        count = int(min(max(_MEASURED_VALUES / magnitudes.count, _MIN_STEPS), _MAX_STEPS))
        search.measure(_fine_starts(magnitudes, levels, count))
        if magnitudes.count <= _GOLDEN_VALUES:
            _golden_section(lambda r: search.measure(np.array([2 * r / (levels - 1)])), magnitudes.peak)
    search.descend()
    return search.step


def _tail(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the suffix sums of the terms, and a final 0."""
    return np.append(np.cumsum(terms[::-1])[::-1], 0.0)


class _Search:
    """The best step measured so far, and the minimum of the parabola of its assignment."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._error = math.inf
        self._next = 0.0
        self._predicted = math.inf
        self.step = 0.0

    def measure(self, steps: NDArray[np.float64]) -> float:
        """Measure all steps in one pass and return the smallest error."""
        sums = self._measure(steps)
        best = int(np.argmin(sums[:, 0]))
        error, product, square = sums[best]
        if error < self._error:
            self._error, self._next, self.step = error, 2 * product / square, float(steps[best])
            self._predicted = square * ((self._next - self.step) / 2) ** 2
        return float(error)

    def descend(self) -> None:
        """Move to the optimal step for the current assignment while the error decreases."""
        target = self._next
        for _ in range(_MAX_DESCENTS):
            if self._predicted < self._error * _MIN_PREDICTED:
                return
            error, step, following = self._error, self.step, self._next
            self.measure(np.array([target]))
            if not self._error < error * (1 - _MIN_DECREASE):
                return
            # Convergence is linear: extrapolate the line through both points to its fixed point.
            slope = (self._next - following) / (self.step - step)
            target = self._next if not 0 < slope < 1 else self.step + (self._next - self.step) / (1 - slope)


def _sweep(values: NDArray[np.float64], thresholds: int) -> float:
    """Return the best step over all crossings, visited from the largest step to the smallest."""
    crossings = (values[:, None] / np.arange(1, thresholds + 1)).ravel()
    order = np.argsort(-crossings, kind="stable")
    order = order[crossings[order] > 0]
    value, threshold = order // thresholds, order % thresholds + 1
    products = np.cumsum(np.append(values.sum(), 2 * values[value]))
    squares = np.cumsum(np.append(float(len(values)), 8.0 * threshold))
    best = int(np.argmax(products * (products / squares)))
    return float(2 * products[best] / squares[best])


def _coarse_starts(magnitudes: Magnitudes, levels: int) -> NDArray[np.float64]:
    """Return the best step for the histogram, and the local optima that are nearly as good."""
    thresholds = np.arange(1, levels // 2)

    def assign(halves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the smallest error of each half step's assignment, and the half step that reaches it."""
        above, total = magnitudes.above(2 * halves[:, None] * thresholds)
        products = magnitudes.totals.sum() + 2 * total.sum(axis=1)
        squares = magnitudes.count + 8 * (thresholds * above).sum(axis=1)
        return magnitudes.squares.sum() - products * (products / squares), products / squares

    lowest, highest = magnitudes.mean / (levels - 1), magnitudes.peak
    halves = np.geomspace(lowest, highest, int(256 * math.log2(highest / lowest)) + 2)
    error, _ = assign(halves)
    optima = np.flatnonzero(
        (error < np.append(error[1:], np.inf)) & (error <= np.insert(error[:-1], 0, np.inf))
    )
    optima = optima[error[optima] <= _NEAR_OPTIMAL * error.min()]
    optima = optima[np.argsort(error[optima], kind="stable")[:_MAX_STARTS]]
    around = halves[optima, None] * np.geomspace(2 ** (-1 / 256), 2 ** (1 / 256), 129)
    error, best = (values.reshape(around.shape) for values in assign(around.ravel()))
    starts: NDArray[np.float64] = 2 * best[np.arange(len(optima)), error.argmin(axis=1)]
    return starts


def _fine_starts(magnitudes: Magnitudes, levels: int, count: int) -> NDArray[np.float64]:
    """Return steps around the best bound for the histogram, assuming evenly distributed rounding errors."""
    edges, top = magnitudes.edges, levels - 1
    bounds = np.append(edges[(edges > magnitudes.mean) & (edges < magnitudes.peak)], magnitudes.peak)
    above, total = magnitudes.above(bounds)
    squares = np.interp(bounds, edges, _tail(magnitudes.squares))
    overload = squares - 2 * bounds * total + bounds**2 * above
    granular = (magnitudes.count - above) * (bounds / top) ** 2 / 3
    best = bounds[np.argmin(overload + granular)]
    around = best * (1 + (np.arange(count) - count // 2) / (2.0 * levels))
    return 2 * np.append(around, magnitudes.peak) / top


def _golden_section(error: Callable[[float], float], high: float, tolerance: float = 1e-2) -> None:
    """Call ``error`` at the bounds that a golden-section search over [0, high] visits."""
    ratio = (math.sqrt(5) - 1) / 2
    low = 0.0
    left, right = high * ratio**2, high * ratio
    left_error, right_error = error(left), error(right)
    for _ in range(100):
        if high - low <= tolerance:
            return
        if left_error < right_error:
            high, right, right_error = right, left, left_error
            left = low + (high - low) * ratio**2
            left_error = error(left)
        else:
            low, left, left_error = left, right, right_error
            right = low + (high - low) * ratio
            right_error = error(right)
