"""The principal basis: an orthogonal change of basis, which preserves dot products and distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POSITIONS = 8


def principal(covariance: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Return the matrix ``[dim, dim]`` whose columns spread the principal components over 8 positions.

    The first of every 8 columns mixes the components of the largest variances, the second the next ones,
    and so on; within a position a random rotation spreads the variance evenly. The values that share the
    bits of a trellis code then differ in variance, and most bits describe the largest. Compare the
    eigenvalue allocation of Ge, He, Ke and Sun, "Optimized Product Quantization" (2013).

    Parameters
    ----------
    covariance : ndarray of float64, shape [dim, dim]
    seed : int
        Seed of the random rotations.
    """
    dim = len(covariance)
    _, components = np.linalg.eigh(covariance)
    components = components[:, ::-1]
    random = np.random.PCG64(seed)
    matrix = np.empty((dim, dim))
    start = 0
    for position in range(min(_POSITIONS, dim)):
        width = len(range(position, dim, _POSITIONS))
        matrix[:, position::_POSITIONS] = components[:, start : start + width] @ _orthogonal(width, random)
        start += width
    return matrix.astype(np.float32)


def _orthogonal(dim: int, random: np.random.PCG64) -> NDArray[np.float64]:
    """Return a uniformly random orthogonal matrix."""
    q, r = np.linalg.qr(_normals(dim * dim, random).reshape(dim, dim))
    return np.asarray(q * np.sign(np.diag(r)))


def _normals(count: int, random: np.random.PCG64) -> NDArray[np.float64]:
    # Box-Muller on raw bits: NumPy guarantees the stream of bits, not that of its distributions.
    bits = random.random_raw(2 * count) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**53
    return np.asarray(np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:]))
