"""Compress a matrix to uniform levels, or to its own distinct values if they are few."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.quantization.chunks import Matrix, Scan, scan, squared_norms
from smallfry.quantization.options import Options
from smallfry.quantization.uniform import Magnitudes, optimal_step
from smallfry.table import Table

_FLOAT32 = np.finfo(np.float32)


class LevelEncoder(Protocol):
    """Encodes rows by a codebook of levels.

    Attributes
    ----------
    table : Table
        The table, of no rows.
    lists_zero_rows : bool
        Whether rows of zeros have no code, so that the table has to list them.
    """

    table: Table
    lists_zero_rows: bool

    def encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the codes of consecutive rows from row `first` on; those of zeros are flagged."""
        ...


class MeasuredEncoder(LevelEncoder, Protocol):
    """Encodes rows, and measures what that loses."""

    def error(self) -> float:
        """Return the relative Frobenius error of the rows encoded."""
        ...


class PlainEncoder:
    """Encodes a matrix as it is."""

    def __init__(self, levels: MeasuredEncoder) -> None:
        self._levels = levels

    @property
    def table(self) -> Table:
        """The table, of no rows."""
        return replace(self._levels.table, frobenius_error=self._levels.error())

    def encode(
        self, first: int, chunk: NDArray[np.float32]
    ) -> tuple[NDArray[Any], None, NDArray[np.bool_] | None]:
        """Return codes, scales and whether each row is listed as one of zeros."""
        zero = squared_norms(chunk) == 0
        return self._levels.encode(first, chunk, zero), None, zero if self._levels.lists_zero_rows else None


def fit_levels(matrix: Matrix, nbit: int, options: Options) -> MeasuredEncoder:
    """Choose levels for a matrix; only `seed`, `rounding` and `clip` of the options apply."""
    clip = options.clip
    scanned = scan(matrix, 2**nbit if clip is None and nbit < 32 else 0)
    if nbit == 32:
        return _FloatEncoder(matrix, scanned)
    if scanned.values is not None:
        return _ExactEncoder(matrix, scanned, nbit)
    step = best_step(matrix, scanned, 2**nbit) if clip is None else 2 * clip / (2**nbit - 1)
    return _GridEncoder(matrix, step, nbit, options.seed if options.rounding == "stochastic" else None)


def uniform_levels(clip: float, nbit: int) -> NDArray[np.float32]:
    """Return ``2**nbit`` evenly spaced levels from -clip to clip, as the ``.sfq`` format defines them."""
    top = 2**nbit - 1
    step = np.float32(2 * clip / top)
    levels = (np.arange(top + 1) - top / 2) * np.float64(step)
    return np.asarray(levels.astype(np.float32))


def best_step(matrix: Matrix, scanned: Scan, levels: int) -> float:
    """Return the step between uniform levels that minimizes the squared error."""

    def measure(steps: NDArray[np.float64]) -> NDArray[np.float64]:
        rounded = _float32_steps(steps)
        parts = []
        for _, chunk in matrix.chunks("clip"):
            part = np.empty((matrix.blocks(chunk), len(steps), 3))
            kernels.grid_sums(chunk, rounded, levels, matrix.block_rows, part, kernels.default_threads())
            parts.append(part)
        sums = _exact_sums(parts)
        # Zero rows are listed, not rounded: subtract their values, each half a step from its level.
        half = (rounded / 2).astype(np.float64)
        sums[:, 0] -= scanned.zero_values * half**2
        sums[:, 2] -= scanned.zero_values
        return sums

    def values() -> NDArray[np.float64]:
        kept = [
            (chunk[chunk.any(axis=1)] if scanned.zero_values else chunk).ravel()
            for _, chunk in matrix.chunks("clip")
        ]
        magnitude: NDArray[np.float64] = np.abs(np.concatenate(kept)).astype(np.float64)
        return magnitude

    magnitudes = Magnitudes.from_bins(scanned.counts, scanned.lows, scanned.zero_values, scanned.peak)
    return optimal_step(magnitudes, levels, measure, values)


class _GridEncoder:
    """Evenly spaced levels."""

    lists_zero_rows = True

    def __init__(self, matrix: Matrix, step: float, nbit: int, seed: int | None) -> None:
        top = 2**nbit - 1
        spacing = _float32_steps(np.array([step]))[0]
        with np.errstate(over="ignore"):
            while not np.isfinite(spacing * np.float32(top / 2)):
                spacing = np.nextafter(spacing, np.float32(0))
        levels = (np.arange(top + 1, dtype=np.float32) - np.float32(top / 2)) * spacing
        codes = np.empty((0, -(-matrix.dim * nbit // 8)), np.uint8)
        self.table = Table(codes, matrix.dim, nbit, "uniform", levels, float(spacing) * top / 2)
        self._matrix, self._spacing, self._seed = matrix, float(spacing), seed
        self._sums: list[NDArray[np.float64]] = []

    def encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[np.uint8]:
        codes = np.empty((len(rows), self.table.stride), np.uint8)
        sums = np.empty((self._matrix.blocks(rows), 2))
        kernels.encode_grid(
            rows,
            zero.view(np.uint8),
            self._spacing,
            self.table.nbit,
            self._matrix.block_rows,
            codes,
            sums,
            self._seed,
            first,
            kernels.default_threads(),
        )
        self._sums.append(sums)
        return codes

    def error(self) -> float:
        error, norm = _exact_sums(self._sums) if self._sums else (0.0, 0.0)
        return math.sqrt(error / norm) if norm else 0.0


class _ExactEncoder:
    """The distinct values of the matrix."""

    def __init__(self, matrix: Matrix, scanned: Scan, nbit: int) -> None:
        self._values = scanned.values
        values = self._values.values()
        if not len(values):
            values = np.zeros(1, np.float32)
        self.lists_zero_rows = 0 not in values
        levels = np.append(values, np.full(2**nbit - len(values), values[-1]))
        codes = np.empty((0, -(-matrix.dim * nbit // 8)), np.uint8)
        self.table = Table(codes, matrix.dim, nbit, "exact", levels, scanned.peak)

    def encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[np.uint8]:
        codes, nbit = np.empty((len(rows), self.table.stride), np.uint8), self.table.nbit
        if not self._values.encode(rows, zero.view(np.uint8), nbit, codes, kernels.default_threads()):
            raise InputError("the matrix has other values in its second pass than in its first")
        return codes

    def error(self) -> float:
        return 0.0


class _FloatEncoder:
    """The matrix itself."""

    lists_zero_rows = False

    def __init__(self, matrix: Matrix, scanned: Scan) -> None:
        codes = np.empty((0, matrix.dim), np.float32)
        self.table = Table(codes, matrix.dim, 32, "float", None, scanned.peak)

    def encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[np.float32]:
        return rows

    def error(self) -> float:
        return 0.0


def _float32_steps(steps: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(steps, _FLOAT32.smallest_subnormal, _FLOAT32.max).astype(np.float32)


def _exact_sums(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add up arrays ``[blocks, …]`` over all blocks, rounding once."""
    terms = np.concatenate(parts)
    sums = np.array([math.fsum(column) for column in terms.reshape(len(terms), -1).T])
    return sums.reshape(terms.shape[1:])
