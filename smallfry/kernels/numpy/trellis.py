"""Encode rows with a trellis code with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.kernels.numpy import decode

# The values of a segment at most, which bounds the memory.
_SEGMENT = 1024
# The state at a border is found from the values within this many lengths of a window.
_REACH = 6
# Rings shorter than _FEW_WINDOWS lengths of a window try this many borders, over their number of windows.
_BORDERS = 128
_FEW_WINDOWS = 6
# Low bits of the costs that the native kernel uses for other purposes, at most.
_HISTORY = 4
# Integers are exact enough up to this ratio of the largest to the mean squared value in the codebook, times
# that of the largest to the least squared scale; at 4 bits up to a quarter.
_EVENNESS = 128
# Back pointers held at a time.
_STEPS = 1 << 24


def encode_trellis(
    x: NDArray[np.float32],
    codebook: NDArray[np.float32],
    column_scale: NDArray[np.float32],
    nbit: int,
    codes: NDArray[np.uint8],
    threads: int,
) -> None:
    """Write the rings of bits whose windows select the nearest values (Viterbi, 1967).

    The squared differences from ``codebook[window] * column_scale`` are summed as integers or floats;
    ties go to the lowest bits. The sums start and end at the borders of equal segments of at most 1,024
    values. The bits at a border, of which the first is that of the ring, are those of the best path
    through the six window lengths before and after it, around the ring. Rings of fewer than six window
    lengths try up to ``128 * L // (dim * nbit)`` borders: the ends of the best paths through the six window
    lengths before.

    Parameters
    ----------
    x : ndarray of float32, shape [rows, dim]
        Finite; the sums of squares do not overflow.
    codebook : ndarray of float32, shape [2**L]
        ``L <= dim * nbit``.
    column_scale : ndarray of float32, shape [dim]
    nbit : int
        1, 2, 3 or 4.
    codes : ndarray of uint8, shape [rows, ceil(dim * nbit / 8)]
        Output.
    threads : int
        Ignored.
    """
    paths = len(codebook) >> nbit
    step = max(1, _STEPS // (paths * max(min(x.shape[1], _SEGMENT), 2 * _reach(len(codebook), nbit))))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        codes[part] = decode.pack(_Search(x[part], codebook, column_scale, nbit).codes(), nbit)


def border_count(dim: int, nbit: int, state_bits: int) -> int:
    """Return how many borders are tried for a row; 1 unless it is short."""
    bits = dim * nbit
    if bits >= _FEW_WINDOWS * state_bits:
        return 1
    return min(1 << (state_bits - nbit), _BORDERS * state_bits // bits)


class _Search:
    """Best paths of some rows. A path is known by the bits that a window shares with the one before."""

    def __init__(
        self, x: NDArray[np.float32], codebook: NDArray[np.float32], scale: NDArray[np.float32], nbit: int
    ) -> None:
        self._x, self._codebook, self._nbit = x, codebook, nbit
        kind = _IntegerCosts if _is_even(codebook, scale, nbit) else _FloatCosts
        self._costs: Any = kind(x, codebook, scale, nbit)
        self._paths = len(codebook) >> nbit
        self._rows = np.arange(len(x))

    def codes(self) -> NDArray[np.uint16]:
        """Return the codes ``[rows, dim]``."""
        dim = self._x.shape[1]
        segments = -(-dim // _SEGMENT)
        borders = [dim * segment // segments for segment in range(segments + 1)]
        count = border_count(dim, self._nbit, len(self._codebook).bit_length() - 1)
        if count > 1:
            paths = [self._try_borders(count)]
        else:
            paths = [self._border(border) for border in borders[:-1]]
        codes = np.empty(self._x.shape, np.uint16)
        for segment, (first, end) in enumerate(pairwise(borders)):
            _, steps = self._advance(self._start(paths[segment]), range(first, end))
            for j, (_, code) in zip(
                range(end - 1, first - 1, -1), self._back(paths[(segment + 1) % segments], steps), strict=True
            ):
                codes[:, j] = code
        return codes

    def _border(self, border: int) -> NDArray[np.intp]:
        """Return the path at a border, on the best of all around it."""
        reach = _reach(len(self._codebook), self._nbit)
        costs = np.zeros_like(self._start(self._rows * 0))
        costs, steps = self._advance(costs, range(border - reach, border + reach))
        *_, (path, _) = self._back(costs.argmin(axis=1), steps[reach:])
        return path

    def _try_borders(self, count: int) -> NDArray[np.intp]:
        """Return the path at the border with the best ring, of those that are the cheapest to reach."""
        dim = self._x.shape[1]
        costs = np.zeros_like(self._start(self._rows * 0))
        costs, _ = self._advance(costs, range(-_reach(len(self._codebook), self._nbit), 0))
        order = costs.argsort(axis=1, kind="stable")[:, :count]
        paths = np.concatenate([self._border(0)[:, None], order], axis=1)
        rings = [self._advance(self._start(path), range(dim))[0][self._rows, path] for path in paths.T]
        best: NDArray[np.intp] = paths[self._rows, np.argmin(rings, axis=0)]
        return best

    def _start(self, path: NDArray[np.intp]) -> NDArray[Any]:
        """Return the costs before the first column of rows that start at a path each."""
        costs = np.full((len(self._x), self._paths), self._costs.infinity)
        costs[self._rows, path] = 0
        return costs

    def _advance(self, costs: NDArray[Any], columns: range) -> tuple[NDArray[Any], list[NDArray[np.uint8]]]:
        """Return the costs of the best paths after more columns, and the code of each column on them."""
        branches = 1 << self._nbit
        before = np.arange(len(self._codebook)) & (self._paths - 1)
        steps = []
        for column in columns:
            reached = self._costs.add(costs[:, before], column % self._x.shape[1])
            reached = reached.reshape(-1, self._paths, branches)
            steps.append(reached.argmin(axis=2).astype(np.uint8))
            costs = reached.min(axis=2)
        return costs, steps

    def _back(
        self, path: NDArray[np.intp], steps: list[NDArray[np.uint8]]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
        """Yield the path before each step and the code on the way, from the last step to the first."""
        for step in reversed(steps):
            code = step[self._rows, path]
            path = (path << self._nbit | code) & (self._paths - 1)
            yield path, code


class _IntegerCosts:
    """Costs of paths as sums of products of 16-bit integers.

    The value x of a column with the scale s costs ``w * (v * v - 2 * x / s * v)`` for the value v of the
    codebook, where the weight w is about ``s * s``. The units of w are the finest with which the sums of the
    native kernel fit into 32 bits, the low bits of which it keeps for codes.
    """

    infinity = np.int64(1 << 50)

    def __init__(
        self, x: NDArray[np.float32], codebook: NDArray[np.float32], scale: NDArray[np.float32], nbit: int
    ) -> None:
        one, two = np.float32(1), np.float32(2)
        low = _HISTORY // nbit * nbit
        factor = np.float32(1 << low)
        distance = (len(codebook).bit_length() - 2) // nbit
        limit = np.float32((1 << 16) // (5 * (2 * distance + _HISTORY // nbit + 1)) >> low)
        unit = np.abs(codebook).max()
        with np.errstate(all="ignore"):
            weights, slopes = np.square(scale / np.abs(scale).max()), -two / unit / scale
            peak = np.abs(x * (slopes * weights / two)).max(axis=1, initial=1)
            weight = np.maximum(np.rint(limit / peak[:, None] * weights), one) * factor
            slope = np.rint(np.clip(x * slopes * weight, -two * limit * factor, two * limit * factor))
        self._slope, self._weight = slope.astype(np.int64), weight.astype(np.int64)
        steps = np.float32(32768) / factor - one
        levels = np.rint(codebook / unit * steps)
        self._levels = (levels * factor).astype(np.int64)
        self._squares = np.rint(np.square(levels / steps) * (steps * factor)).astype(np.int64)

    def add(self, costs: NDArray[np.int64], column: int) -> NDArray[np.int64]:
        """Return the costs ``[rows, 2**L]`` plus those of a column."""
        slope, weight = self._slope[:, column, None], self._weight[:, column, None]
        added: NDArray[np.int64] = slope * self._levels + weight * self._squares
        return costs + added


class _FloatCosts:
    """Costs of paths as sums of squared differences, less their low bits, which the native kernel uses."""

    infinity = np.float32(np.inf)

    def __init__(
        self, x: NDArray[np.float32], codebook: NDArray[np.float32], scale: NDArray[np.float32], nbit: int
    ) -> None:
        self._x, self._codebook, self._scale, self._nbit = x, codebook, scale, nbit

    def add(self, costs: NDArray[np.float32], column: int) -> NDArray[np.float32]:
        """Return the costs ``[rows, 2**L]`` plus those of a column."""
        difference = self._x[:, column, None] - self._codebook * self._scale[column]
        bits = (costs + difference * difference).view(np.int32)
        cleared: NDArray[np.float32] = (bits >> self._nbit << self._nbit).view(np.float32)
        return cleared


def _is_even(codebook: NDArray[np.float32], scale: NDArray[np.float32], nbit: int) -> bool:
    """Return whether values and scales are near enough to each other for integers."""
    squares = np.square(codebook, dtype=np.float64)
    mean = np.cumsum(squares)[-1] / len(codebook)  # summed in order, as in the native kernel
    largest = np.float64(np.abs(codebook).max()) * np.abs(scale).max()
    least = np.float64(np.abs(scale).min())
    even = _EVENNESS if nbit < 4 else _EVENNESS / 4
    return bool(largest > 0 and largest * largest <= even * mean * (least * least))


def _reach(values: int, nbit: int) -> int:
    return -(-_REACH * (values.bit_length() - 1) // nbit)
