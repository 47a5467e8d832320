"""Compress a matrix to uniform levels, or to its own distinct values if they are few."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.progress import Progress
from smallfry.quantization.chunks import Matrix, MatrixChunks, Scan, scan
from smallfry.quantization.options import Options
from smallfry.quantization.uniform import Magnitudes, optimal_step
from smallfry.table import Table

_FLOAT32 = np.finfo(np.float32)


def quantize_plain(
    source: NDArray[np.floating[Any]] | MatrixChunks, nbit: int, options: Options, progress: Progress | None
) -> Table:
    """Compress a matrix without transforms; only `seed`, `rounding` and `clip` of the options apply."""
    clip = options.clip
    matrix = Matrix(source, progress)
    scanned = scan(matrix, 2**nbit if clip is None and nbit < 32 else 0)
    if nbit == 32:
        return _float_table(matrix, scanned)
    if scanned.values is not None:
        return _exact_table(matrix, scanned, nbit)
    step = best_step(matrix, scanned, 2**nbit) if clip is None else 2 * clip / (2**nbit - 1)
    return _uniform_table(
        matrix, scanned, step, nbit, options.seed if options.rounding == "stochastic" else None
    )


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
            chunk[scanned.zero[first : first + len(chunk)] == 0].ravel()
            for first, chunk in matrix.chunks("clip")
        ]
        magnitude: NDArray[np.float64] = np.abs(np.concatenate(kept)).astype(np.float64)
        return magnitude

    magnitudes = Magnitudes.from_bins(scanned.counts, scanned.lows, scanned.zero_values, scanned.peak)
    return optimal_step(magnitudes, levels, measure, values)


def _uniform_table(matrix: Matrix, scanned: Scan, step: float, nbit: int, seed: int | None) -> Table:
    top = 2**nbit - 1
    spacing = _float32_steps(np.array([step]))[0]
    with np.errstate(over="ignore"):
        while not np.isfinite(spacing * np.float32(top / 2)):
            spacing = np.nextafter(spacing, np.float32(0))
    codes = np.empty((matrix.rows, -(-matrix.dim * nbit // 8)), np.uint8)
    parts = []
    for first, chunk in matrix.chunks("encode"):
        rows = slice(first, first + len(chunk))
        part = np.empty((matrix.blocks(chunk), 2))
        kernels.encode_grid(
            chunk,
            scanned.zero[rows],
            float(spacing),
            nbit,
            matrix.block_rows,
            codes[rows],
            part,
            seed,
            first,
            kernels.default_threads(),
        )
        parts.append(part)
    error, norm = _exact_sums(parts)
    return Table(
        codes,
        matrix.dim,
        nbit,
        "uniform",
        (np.arange(top + 1, dtype=np.float32) - np.float32(top / 2)) * spacing,
        float(spacing) * top / 2,
        zero_rows=_zero_rows(scanned.zero),
        frobenius_error=math.sqrt(error / norm) if norm else 0.0,
    )


def _exact_table(matrix: Matrix, scanned: Scan, nbit: int) -> Table:
    values = scanned.values.values()
    if not len(values):
        values = np.zeros(1, np.float32)
    codes = np.empty((matrix.rows, -(-matrix.dim * nbit // 8)), np.uint8)
    for first, chunk in matrix.chunks("encode"):
        rows = slice(first, first + len(chunk))
        if not scanned.values.encode(chunk, scanned.zero[rows], nbit, codes[rows], kernels.default_threads()):
            raise InputError("the matrix has other values in its second pass than in its first")
    return Table(
        codes,
        matrix.dim,
        nbit,
        "exact",
        np.append(values, np.full(2**nbit - len(values), values[-1])),
        scanned.peak,
        zero_rows=_zero_rows(scanned.zero if 0 not in values else np.empty(0)),
    )


def _float_table(matrix: Matrix, scanned: Scan) -> Table:
    values = np.empty((matrix.rows, matrix.dim), np.float32)
    for first, chunk in matrix.chunks("encode"):
        values[first : first + len(chunk)] = chunk
    return Table(values, matrix.dim, 32, "float", None, scanned.peak)


def _zero_rows(zero: NDArray[Any]) -> NDArray[np.uint32]:
    return np.flatnonzero(zero).astype(np.uint32)


def _float32_steps(steps: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(steps, _FLOAT32.smallest_subnormal, _FLOAT32.max).astype(np.float32)


def _exact_sums(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add up arrays ``[blocks, …]`` over all blocks, rounding once."""
    terms = np.concatenate(parts)
    sums = np.array([math.fsum(column) for column in terms.reshape(len(terms), -1).T])
    return sums.reshape(terms.shape[1:])
