"""Scan, search and encode float32 matrices with NumPy.

Sums run in the order of the vector units, so that they have the same bits: eight partial sums for each block
of rows, one for each position modulo 8, added up as a tree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smallfry.kernels.numpy.decode import pack

_LANES = 8


def scan(
    x: NDArray[np.float32],
    zero: NDArray[np.uint8],
    counts: NDArray[np.int64],
    lows: NDArray[np.int64],
    threads: int,
) -> tuple[float, int]:
    """Scan all values of ``x`` [rows, dim].

    Sets ``zero[i]`` to whether row i is all zeros. Adds the values to the histogram of absolute values,
    whose bins are the upper 16 of the 31 bits of ``|x|``: one to ``counts[bin]``, the lower 15 bits to
    ``lows[bin]``.

    Returns
    -------
    tuple of float and int
        The largest absolute value, and the flat index of the first NaN or infinity, or -1. With a NaN or
        infinity, the other results are undefined.
    """
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    peak = bits.max(initial=np.uint32(0))
    if peak >= 0x7F800000:
        return float("inf"), int((bits >= 0x7F800000).argmax())
    zero[:] = ~bits.any(axis=1)
    bins = (bits >> np.uint32(15)).ravel()
    counts += np.bincount(bins, minlength=len(counts))
    # Exact: sums of 2**38 values stay below 2**53.
    lows += np.bincount(bins, bits.ravel() & np.uint32(0x7FFF), minlength=len(lows)).astype(np.int64)
    return float(peak.view(np.float32)), -1


def grid_sums(
    x: NDArray[np.float32],
    steps: NDArray[np.float32],
    levels: int,
    block_rows: int,
    sums: NDArray[np.float64],
    threads: int,
) -> None:
    """Measure grids of ``levels`` evenly spaced levels, one for each step, on ``x`` [rows, dim].

    With c the odd number that a value x rounds to in units of half a step, writes the sums of
    (x - level)**2, x * c and c**2 over ``block_rows`` rows to ``sums[block, grid]``.
    """
    for block in range(len(sums)):
        values = x[block * block_rows : (block + 1) * block_rows].astype(np.float64)
        for grid, step in enumerate(steps):
            units = 2 * _codes(values, step, levels) - (levels - 1)
            error = values - _levels(units, step)
            for column, terms in enumerate((error * error, values * units, units * units)):
                sums[block, grid, column] = _lane_sum(terms.reshape(1, -1))


def encode_grid(
    x: NDArray[np.float32],
    zero: NDArray[np.uint8],
    step: float,
    nbit: int,
    block_rows: int,
    codes: NDArray[np.uint8],
    sums: NDArray[np.float64],
    seed: int | None,
    first_row: int,
    threads: int,
) -> None:
    """Write the packed codes of ``x`` [rows, dim] on a grid of ``2**nbit`` levels.

    Zero rows get zero bytes. Rounds to the nearest level, or with a seed stochastically; ``first_row`` is the
    number of the first row of ``x`` in the whole matrix. Writes the sums of (x - level)**2 and x**2 over
    ``block_rows`` rows to ``sums[block]``.
    """
    levels = 2**nbit
    for block in range(len(sums)):
        rows = slice(block * block_rows, (block + 1) * block_rows)
        values = x[rows].astype(np.float64)
        noise = None if seed is None else _noise(seed, first_row + rows.start, values.shape)
        numbers = _codes(values, np.float32(step), levels, noise)
        error = values - _levels(2 * numbers - (levels - 1), np.float32(step))
        absent = zero[rows] != 0
        numbers[absent] = 0
        error[absent] = 0
        codes[rows] = pack(numbers.astype(np.uint16), nbit)
        sums[block] = _lane_sum(error * error), _lane_sum(values * values)


class ValueSet:
    """The distinct values of a matrix, up to ``limit``; -0.0 counts as 0.0."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values = np.empty(0, np.float32)

    def add(self, x: NDArray[np.float32], zero: NDArray[np.uint8]) -> bool:
        """Add the values of ``x`` outside zero rows; return False once they exceed the limit."""
        step = max(1, 4 * self._limit // x.shape[1])
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            fresh = x[rows][zero[rows] == 0].ravel() + np.float32(0)
            self._values = np.union1d(self._values, fresh)
            if len(self._values) > self._limit:
                return False
        return True

    def values(self) -> NDArray[np.float32]:
        """Return the values in increasing order."""
        return self._values

    def encode(
        self,
        x: NDArray[np.float32],
        zero: NDArray[np.uint8],
        nbit: int,
        codes: NDArray[np.uint8],
        threads: int,
    ) -> bool:
        """Write the packed positions in `values` of the values of ``x``.

        Zero rows get the position of 0.0, or zero bytes. Returns whether the set holds all other values.
        """
        found = np.searchsorted(self._values, x)
        found[found == len(self._values)] = 0
        known = self._values[found] == x
        found[~known] = 0
        codes[:] = pack(found.astype(np.uint16), nbit)
        return bool((known | (zero[:, None] != 0)).all())


def _codes(
    values: NDArray[np.float64], step: np.float32, levels: int, noise: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    position = np.clip(values * (1 / np.float64(step)) + (levels - 1) / 2, 0, levels - 1)
    return np.rint(position) if noise is None else np.minimum(np.floor(position + noise), levels - 1)


def _levels(units: NDArray[np.float64], step: np.float32) -> NDArray[np.float64]:
    """Return the values of odd multiples of half a step, as float32 holds them."""
    with np.errstate(over="ignore"):
        return (units * (np.float64(step) / 2)).astype(np.float32).astype(np.float64)


def _lane_sum(terms: NDArray[np.float64]) -> float:
    """Sum ``terms`` [rows, n], position j of each row in lane j modulo 8."""
    rows, width = terms.shape
    padded = np.zeros((rows, -(-width // _LANES) * _LANES))
    padded[:, :width] = terms
    lanes = np.add.reduce(padded.reshape(-1, _LANES), axis=0)
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return float(lanes[0])


def _noise(seed: int, first_row: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return numbers in [0, 1) that depend only on the seed and the position of a value (SplitMix64)."""
    with np.errstate(over="ignore"):
        at = np.arange(shape[0] * shape[1], dtype=np.uint64) + np.uint64(first_row) * np.uint64(shape[1])
        mixed = _mix(_mix(np.array([seed], np.uint64)) + at)
    return (mixed >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
