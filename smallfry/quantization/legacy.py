"""`compress_uniform` of the original project: a float matrix rounded to evenly spaced levels."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.quantization.chunks import Matrix, Scan, scan
from smallfry.quantization.levels import best_step
from smallfry.quantization.quantize import quantize
from smallfry.table import KINDS

# Values processed at a time, which bounds the temporaries.
_PART_VALUES = 1 << 16


def compress_uniform(
    X: NDArray[np.floating[Any]],
    bit_rate: int,
    adaptive_range: bool = False,
    stochastic_round: bool = False,
    skip_quantize: bool = False,
) -> tuple[NDArray[np.floating[Any]], float, float]:
    """Return a matrix rounded to ``2**bit_rate`` evenly spaced levels, in its own dtype.

    With ``adaptive_range`` and 1, 2, 4, 8 or 16 bits the values are those of `smallfry.compress.quantize` and
    of ``QuantEmbedding``: rows of zeros stay zeros, and at most ``2**bit_rate`` distinct values are kept.

    Parameters
    ----------
    X : ndarray of any float dtype and shape
        Rows are along the first axis.
    bit_rate : int
        0 (all zeros) to 32 (no rounding).
    adaptive_range : bool
        Clip at the bound that minimizes the squared error, instead of the largest absolute value.
    stochastic_round : bool
        Round up or down at random. The seed is drawn from NumPy's global state, so ``np.random.seed`` makes
        the result repeatable.
    skip_quantize : bool
        Clip without rounding.

    Returns
    -------
    tuple
        The rounded matrix, in the dtype and shape of ``X``; the squared Frobenius norm of its difference from
        ``X``; the elapsed seconds.

    Raises
    ------
    NonFiniteError, InputError
        As `smallfry.compress.quantize`.
    """
    start = time.perf_counter()
    if not 0 <= bit_rate <= 32:
        raise InputError(f"bit_rate is {bit_rate}, expected 0 to 32")
    if X.dtype.kind != "f" or not X.size:
        raise InputError(f"X is {X.dtype} {list(X.shape)}, expected floats, one or more")
    values = X.reshape(len(X) if X.ndim > 1 else 1, -1)
    exponent = _extreme_exponent(values)
    if exponent:
        values = np.ldexp(values, -exponent)
    seed = int(np.random.randint(2**31)) if stochastic_round else None  # noqa: NPY002
    searched = adaptive_range and 0 < bit_rate < 32
    if searched and bit_rate in KINDS["uniform"] and not skip_quantize:
        table = quantize(
            values, bit_rate, rounding="nearest" if seed is None else "stochastic", seed=seed or 0
        )
        rounded = table.decode().astype(X.dtype)
    else:
        matrix, flat = Matrix(values), values.reshape(-1)
        scanned = scan(matrix, 0)
        bound = scanned.peak
        if searched and bound:
            bound = _best_bound(flat, matrix, scanned, 2**bit_rate)
        rounded = _rounded(flat, bound, 32 if skip_quantize else bit_rate, seed)
    if exponent:
        rounded = np.ldexp(rounded, exponent)
    error = _squared_distance(X.reshape(-1), rounded.reshape(-1))
    return rounded.reshape(X.shape), error, time.perf_counter() - start


def _extreme_exponent(values: NDArray[np.floating[Any]]) -> int:
    """Return the exponent that scales float64 beyond float32 to about 1, otherwise 0."""
    if values.dtype.itemsize <= 4:
        return 0
    peak = float(max(values.max(), -values.min()))
    return math.frexp(peak)[1] if 0 < peak < 1e-30 or 1e30 < peak < math.inf else 0


def _best_bound(values: NDArray[np.floating[Any]], matrix: Matrix, scanned: Scan, levels: int) -> float:
    """Return the best bound when rows of zeros are rounded like the others."""
    top = levels - 1
    scanned = replace(scanned, zero_values=0)
    bound = best_step(matrix, scanned, levels) * top / 2
    # The search runs in float32; the minimum of the parabola refines it in float64.
    product = square = 0.0
    for part in _parts(values):
        units = _units(part, bound, top)
        product += float((part * units).sum())
        square += float((units * units).sum())
    return top * product / square


def _rounded(
    values: NDArray[np.floating[Any]], bound: float, bit_rate: int, seed: int | None
) -> NDArray[np.floating[Any]]:
    """Clip to ``bound`` and round to ``2**bit_rate`` levels; 32 bits only clip."""
    if bit_rate == 32 or not bound:
        return values.clip(-bound, bound)
    if bit_rate == 0:
        return np.zeros_like(values)
    top = 2**bit_rate - 1
    noise = None if seed is None else np.random.default_rng(seed)
    rounded = np.empty_like(values)
    for part, out in zip(_parts(values), _parts(rounded), strict=True):
        out[:] = _units(part, bound, top, noise) / top * bound
    return rounded


def _units(
    values: NDArray[np.floating[Any]], bound: float, top: int, noise: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Return the odd integers that values round to, in units of half a step."""
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
