"""Compress a matrix to a table of 1 to 32 bits a value."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.clip import Magnitudes, optimal_step
from smallfry.errors import InputError
from smallfry.learned import Options, learn
from smallfry.matrix import Matrix, MatrixChunks, Progress, Scan, scan
from smallfry.table import NBITS, Table

__all__ = ["MatrixChunks", "Progress", "compress_uniform", "quantize"]

_FLOAT32 = np.finfo(np.float32)
# Values that `compress_uniform` works on in one go.
_PART_VALUES = 1 << 16


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
    zeros decode to zeros. The last options leave less error in as many bits; see `smallfry.learned`.

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
        As `smallfry.learned.Options`.
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
    step = _best_step(matrix, found, 2**nbit) if clip is None else 2 * clip / (2**nbit - 1)
    return _uniform_table(matrix, found, step, nbit, seed if rounding == "stochastic" else None)


def compress_uniform(
    X: NDArray[np.floating[Any]],
    bit_rate: int,
    adaptive_range: bool = False,
    stochastic_round: bool = False,
    skip_quantize: bool = False,
) -> tuple[NDArray[np.floating[Any]], float, float]:
    """Round a matrix to ``2**bit_rate`` evenly spaced levels, and return it in full.

    Parameters
    ----------
    X : ndarray of any float dtype and shape
    bit_rate : int
        0 (all zeros) to 32 (nothing is rounded).
    adaptive_range : bool
        Clip at the bound that leaves the least squared error, instead of the largest absolute value.
    stochastic_round : bool
        Round up or down by chance. The seed is drawn from NumPy's global state: ``np.random.seed`` before the
        call makes it repeatable.
    skip_quantize : bool
        Only clip.

    Returns
    -------
    tuple
        The rounded matrix, in the dtype and shape of ``X``; the squared Frobenius norm of its difference from
        ``X``; the seconds taken.

    Raises
    ------
    NonFiniteError, InputError
        As `quantize`.
    """
    start = time.perf_counter()
    if not 0 <= bit_rate <= 32:
        raise InputError(f"bit_rate is {bit_rate}, expected 0 to 32")
    if X.dtype.kind != "f" or not X.size:
        raise InputError(f"X is {X.dtype} {list(X.shape)}, expected floats, one or more")
    values = X.reshape(-1)
    exponent = _extreme_exponent(float(max(values.max(), -values.min())))
    if exponent:
        values = np.ldexp(values, -exponent)
    matrix = Matrix(values.reshape(len(X) if X.ndim > 1 else 1, -1))
    found = scan(matrix, 0)
    bound = found.peak
    if adaptive_range and 0 < bit_rate < 32 and bound:
        bound = _best_bound(values, matrix, found, 2**bit_rate)
    noise = np.random.default_rng(np.random.randint(2**31, size=4)) if stochastic_round else None  # noqa: NPY002
    rounded = _rounded(values, bound, 32 if skip_quantize else bit_rate, noise)
    if exponent:
        rounded = np.ldexp(rounded, exponent)
    error = _squared_distance(X.reshape(-1), rounded)
    return rounded.reshape(X.shape), error, time.perf_counter() - start


def _best_step(matrix: Matrix, found: Scan, levels: int) -> float:
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


def _extreme_exponent(peak: float) -> int:
    """Return the power of two that brings values at the limits of float32 to the order of 1, otherwise 0."""
    return math.frexp(peak)[1] if 0 < peak < 1e-30 or 1e30 < peak < math.inf else 0


def _best_bound(values: NDArray[np.floating[Any]], matrix: Matrix, found: Scan, levels: int) -> float:
    """Return the best bound where rows of zeros are rounded like all others."""
    top = levels - 1
    found = replace(found, zero=np.zeros_like(found.zero), zero_values=0)
    bound = _best_step(matrix, found, levels) * top / 2
    # The search ran in float32: move to the minimum of the parabola in float64.
    product = square = 0.0
    for part in _parts(values):
        units = _units(part, bound, top)
        product += float((part * units).sum())
        square += float((units * units).sum())
    return top * product / square


def _rounded(
    values: NDArray[np.floating[Any]], bound: float, bit_rate: int, noise: np.random.Generator | None
) -> NDArray[np.floating[Any]]:
    """Clip to ``bound`` and round to ``2**bit_rate`` levels; at 32 only clip."""
    if bit_rate == 32 or not bound:
        return values.clip(-bound, bound)
    if bit_rate == 0:
        return np.zeros_like(values)
    top = 2**bit_rate - 1
    rounded = np.empty_like(values)
    for part, out in zip(_parts(values), _parts(rounded), strict=True):
        out[:] = _units(part, bound, top, noise) / top * bound
    return rounded


def _units(
    values: NDArray[np.floating[Any]], bound: float, top: int, noise: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Return the odd numbers that values round to in units of half a step."""
    position = np.clip(np.multiply(values, top / 2 / bound, dtype=np.float64) + top / 2, 0, top)
    if noise is None:
        codes = np.rint(position)
    else:
        codes = np.minimum(np.floor(position + noise.random(len(position))), top)
    units: NDArray[np.float64] = 2 * codes - top
    return units


def _squared_distance(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    with np.errstate(over="ignore"):
        parts = (np.subtract(x, y, dtype=np.float64) for x, y in zip(_parts(a), _parts(b), strict=True))
        return math.fsum(float(np.dot(part, part)) for part in parts)


def _parts(values: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.floating[Any]]]:
    for start in range(0, len(values), _PART_VALUES):
        yield values[start : start + _PART_VALUES]


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
