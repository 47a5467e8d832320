"""Trellis codes: a codebook learned from the data, indexed by overlapping windows of a row's bits."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.kernels.numpy.trellis import border_count
from smallfry.progress import Progress

# Values of the sample for each of the codebook.
_SAMPLE = 1 << 12
# Values of the sample, times the borders that are tried for each row.
_SEARCHED = 1 << 24
_MAX_ROUNDS = 40
_TOLERANCE = 1e-3


def learn(
    rows: NDArray[np.float32],
    column_scale: NDArray[np.float32],
    nbit: int,
    state_bits: int,
    seed: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the codebook that is a local optimum for a sample of rows.

    Starts from the quantiles of the normal distribution in random order, and alternates between the best
    codes and the means of the values that have them (Lloyd, 1957).

    Parameters
    ----------
    rows : ndarray of float32, shape [n, dim]
        Finite, ``dim * nbit >= state_bits``. Every n-th row is used if they are many.
    column_scale : ndarray of float32, shape [dim]
        Factors of the codebook for each column.
    nbit : int
    state_bits : int
        Bits of a window.
    seed : int
        Seed of the order.
    progress : callable, optional
        Called with the stage "fit" and the rounds done.

    Returns
    -------
    ndarray of float32, shape [2**state_bits]
        Representable in bfloat16.
    """
    size = 2**state_bits
    searched = rows.size * border_count(rows.shape[1], nbit, state_bits)
    rows = np.ascontiguousarray(rows[:: max(1, rows.size // (size * _SAMPLE), searched // _SEARCHED)])
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)])
    codebook = np.random.default_rng(seed).permutation(quantiles / quantiles.std()).astype(np.float32)
    scales = np.broadcast_to(column_scale.astype(np.float64), rows.shape).ravel()
    weights, products = np.square(scales), scales * rows.ravel()
    error = np.inf
    for done in range(_MAX_ROUNDS):
        windows = kernels.unpack(encode(rows, codebook, column_scale, nbit), rows.shape[1], nbit, state_bits)
        values = windows.ravel()
        previous, error = error, float(np.square(products - weights * codebook[values]).sum())
        if progress is not None:
            progress("fit", done + 1, _MAX_ROUNDS)
        if not error < previous * (1 - _TOLERANCE):
            break
        weight, total = np.bincount(values, weights, size), np.bincount(values, products, size)
        codebook = np.divide(total, weight, out=codebook.astype(np.float64), where=weight > 0).astype(
            np.float32
        )
    return to_bfloat16(codebook)


def encode(
    rows: NDArray[np.float32], codebook: NDArray[np.float32], column_scale: NDArray[np.float32], nbit: int
) -> NDArray[np.uint8]:
    """Return the codes of rows ``[n, dim]`` as uint8 ``[n, ceil(dim * nbit / 8)]``."""
    codes = np.empty((len(rows), -(-rows.shape[1] * nbit // 8)), np.uint8)
    kernels.encode_trellis(rows, codebook, column_scale, nbit, codes, kernels.default_threads())
    return codes


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round float32 values to bfloat16, half to even."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)
