"""Compress a matrix to a table of 1 to 32 bits a value."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.quantization.chunks import Matrix, MatrixChunks, Progress, Scan, scan
from smallfry.quantization.learned import Options, learn
from smallfry.quantization.uniform import Magnitudes, optimal_step
from smallfry.table import NBITS, Table

_FLOAT32 = np.finfo(np.float32)


def quantize(
    X: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    clip: float | None = None,
    codebook: str = "uniform",
    center: bool = False,
    rotate: str | None = None,
    row_scale: bool = False,
    progress: Progress | None = None,
) -> Table:
    """Compress a matrix to ``nbit`` bits a value with the least squared error that uniform levels allow.

    A matrix with at most ``2**nbit`` distinct values keeps them exactly: they become the codebook. Rows of
    zeros decode to zeros. The last options leave less error in as many bits; see
    `smallfry.quantization.learned`.

    Parameters
    ----------
    X : ndarray of any float dtype, shape [rows, dim], or MatrixChunks
        Read several times, never changed, converted to float32 a part at a time.
    nbit : int
        1, 2, 4, 8, 16 or 32.
    rounding : {"nearest", "stochastic"}
        Stochastic: up or down by chance, such that the expected value is the one given, within the bound.
    seed : int
        Of what is random, 0 to 2**64 - 1; the same seed gives the same table.
    clip : float, optional
        The bound of the levels, instead of the best one.
    codebook : {"uniform", "lloyd", "grouped"}
    center : bool
    rotate : {"orthogonal", "hadamard", "principal"}, optional
    row_scale : bool
        As `smallfry.quantization.learned.Options`.
    progress : callable, optional
        Called as ``progress(stage, rows_done, rows)`` after each part of each pass over the matrix; the
        stages are "scan", "clip" (as many passes as it takes) and "encode".

    Returns
    -------
    Table

    Raises
    ------
    NonFiniteError
        The matrix holds NaN or infinity.
    InputError
        The matrix or an option is not as above.
    """
    if nbit not in NBITS:
        raise InputError(f"nbit is {nbit}, expected one of {', '.join(map(str, NBITS))}")
    if rounding not in ("nearest", "stochastic"):
        raise InputError(f"rounding is {rounding!r}, expected 'nearest' or 'stochastic'")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}, expected 0 to 2**64 - 1")
    if clip is not None and not 0 < clip <= _FLOAT32.max:
        raise InputError(f"clip is {clip}, expected a number above 0, at most {_FLOAT32.max}")
    options = Options(codebook, center, rotate, row_scale, seed)
    options.check(nbit)
    if codebook != "uniform" and (rounding != "nearest" or clip is not None):
        raise InputError(f"rounding and clip go with a uniform codebook, not with a {codebook} one")
    if not options.plain:

        def uniform(changed: MatrixChunks) -> Table:
            return quantize(changed, nbit, rounding=rounding, seed=seed, clip=clip, progress=progress)

        return learn(X, nbit, options, uniform, progress)
    matrix = Matrix(X, progress)
    found = scan(matrix, 2**nbit if clip is None and nbit < 32 else 0)
    if nbit == 32:
        return _float_table(matrix, found)
    if found.values is not None:
        return _given_table(matrix, found, nbit)
    step = best_step(matrix, found, 2**nbit) if clip is None else 2 * clip / (2**nbit - 1)
    return _uniform_table(matrix, found, step, nbit, seed if rounding == "stochastic" else None)


def best_step(matrix: Matrix, found: Scan, levels: int) -> float:
    """Return the step of ``levels`` uniform levels that leaves the least squared error."""

    def measure(steps: NDArray[np.float64]) -> NDArray[np.float64]:
        rounded = _float32_steps(steps)
        parts = []
        for _, chunk in matrix.chunks("clip"):
            part = np.empty((matrix.blocks(chunk), len(steps), 3))
            kernels.grid_sums(chunk, rounded, levels, matrix.block_rows, part, kernels.default_threads())
            parts.append(part)
        sums = _exact_sums(parts)
        # Rows of zeros are listed, not rounded: take out their values, each half a step from its level.
        half = (rounded / 2).astype(np.float64)
        sums[:, 0] -= found.zero_values * half**2
        sums[:, 2] -= found.zero_values
        return sums

    def values() -> NDArray[np.float64]:
        kept = [
            chunk[found.zero[first : first + len(chunk)] == 0].ravel()
            for first, chunk in matrix.chunks("clip")
        ]
        magnitude: NDArray[np.float64] = np.abs(np.concatenate(kept)).astype(np.float64)
        return magnitude

    magnitudes = Magnitudes.from_bins(found.counts, found.lows, found.zero_values, found.peak)
    return optimal_step(magnitudes, levels, measure, values)


def _uniform_table(matrix: Matrix, found: Scan, wanted: float, nbit: int, seed: int | None) -> Table:
    top = 2**nbit - 1
    step = _float32_steps(np.array([wanted]))[0]
    with np.errstate(over="ignore"):
        while not np.isfinite(step * np.float32(top / 2)):
            step = np.nextafter(step, np.float32(0))
    codes = np.empty((matrix.rows, -(-matrix.dim * nbit // 8)), np.uint8)
    parts = []
    for first, chunk in matrix.chunks("encode"):
        rows = slice(first, first + len(chunk))
        part = np.empty((matrix.blocks(chunk), 2))
        kernels.encode_grid(
            chunk,
            found.zero[rows],
            float(step),
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
        (np.arange(top + 1, dtype=np.float32) - np.float32(top / 2)) * step,
        float(step) * top / 2,
        zero_rows=_listed(found.zero),
        frobenius_error=math.sqrt(error / norm) if norm else 0.0,
    )


def _given_table(matrix: Matrix, found: Scan, nbit: int) -> Table:
    values = found.values.values()
    if not len(values):
        values = np.zeros(1, np.float32)
    codes = np.empty((matrix.rows, -(-matrix.dim * nbit // 8)), np.uint8)
    for first, chunk in matrix.chunks("encode"):
        rows = slice(first, first + len(chunk))
        if not found.values.encode(chunk, found.zero[rows], nbit, codes[rows], kernels.default_threads()):
            raise InputError("the matrix gave other values on its second reading")
    return Table(
        codes,
        matrix.dim,
        nbit,
        "given",
        np.append(values, np.full(2**nbit - len(values), values[-1])),
        found.peak,
        zero_rows=_listed(found.zero if 0 not in values else np.empty(0)),
    )


def _float_table(matrix: Matrix, found: Scan) -> Table:
    values = np.empty((matrix.rows, matrix.dim), np.float32)
    for first, chunk in matrix.chunks("encode"):
        values[first : first + len(chunk)] = chunk
    return Table(values, matrix.dim, 32, "float", None, found.peak)


def _listed(zero: NDArray[Any]) -> NDArray[np.uint32]:
    return np.flatnonzero(zero).astype(np.uint32)


def _float32_steps(steps: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(steps, _FLOAT32.smallest_subnormal, _FLOAT32.max).astype(np.float32)


def _exact_sums(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add up arrays ``[blocks, …]`` over all blocks, rounding once."""
    terms = np.concatenate(parts)
    sums = np.array([math.fsum(column) for column in terms.reshape(len(terms), -1).T])
    return sums.reshape(terms.shape[1:])
