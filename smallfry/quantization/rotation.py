"""Orthogonal changes of basis, which keep dot products and distances and make the columns alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

KINDS = ("orthogonal", "hadamard", "principal")

_HADAMARD_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Rotation:
    """An orthogonal matrix and its recipe.

    Attributes
    ----------
    kind : str
        ``"orthogonal"`` (uniformly random), ``"hadamard"`` (random signs, permutations and Hadamard
        transforms) or ``"principal"`` (learned, see `principal`).
    seed : int
        Seed of its random part.
    dim : int
    learned : ndarray of float32, shape [dim, dim], or None
        The matrix of a principal rotation. Other kinds follow from their seed on every machine: orthogonal up
        to rounding, Hadamard bit for bit.
    """

    kind: str
    seed: int
    dim: int
    learned: NDArray[np.float32] | None = None

    @cached_property
    def matrix(self) -> NDArray[np.float32]:
        """The float32 matrix ``[dim, dim]`` whose columns are the new axes, computed at first use."""
        if self.learned is not None:
            return self.learned
        random = np.random.PCG64(self.seed)
        made = _orthogonal(self.dim, random) if self.kind == "orthogonal" else _hadamard(self.dim, random)
        return made.astype(np.float32)

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return row vectors ``[n, dim]`` in the new basis."""
        return vectors @ self.matrix

    def undo(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return row vectors ``[n, dim]`` of the new basis in the original one."""
        return vectors @ self.matrix.T


def principal(covariance: NDArray[np.float64], group: int, seed: int) -> Rotation:
    """Return the rotation that spreads the principal components over the positions of a group.

    A grouped codebook encodes `group` adjacent values together. The first value of every group mixes the
    components of the largest variances, the second the next ones, and so on; within a position a random
    rotation spreads the variance evenly. All groups then have the same distribution, and the codebook spends
    its bits where the variance is. Compare the eigenvalue allocation of Ge, He, Ke and Sun, "Optimized
    Product Quantization" (2013).

    Parameters
    ----------
    covariance : ndarray of float64, shape [dim, dim]
    group : int
        Values encoded together.
    seed : int
        Seed of the random rotations.
    """
    dim = len(covariance)
    _, components = np.linalg.eigh(covariance)
    components = components[:, ::-1]
    random = np.random.PCG64(seed)
    matrix = np.empty((dim, dim))
    start = 0
    for position in range(min(group, dim)):
        width = len(range(position, dim, group))
        matrix[:, position::group] = components[:, start : start + width] @ _orthogonal(width, random)
        start += width
    return Rotation("principal", seed, dim, matrix.astype(np.float32))


def _orthogonal(dim: int, random: np.random.PCG64) -> NDArray[np.float64]:
    q, r = np.linalg.qr(_normals(dim * dim, random).reshape(dim, dim))
    return np.asarray(q * np.sign(np.diag(r)))


def _hadamard(dim: int, random: np.random.PCG64) -> NDArray[np.float64]:
    """Return rounds of random signs, a random order, and transforms of the powers of two in `dim`."""
    matrix = np.eye(dim)
    for _ in range(_HADAMARD_ROUNDS):
        matrix *= np.where(random.random_raw(dim) >> np.uint64(63), 1.0, -1.0)
        matrix = matrix[:, np.argsort(random.random_raw(dim), kind="stable")]
        start = 0
        for bit in reversed(range(dim.bit_length())):
            width = dim & 1 << bit
            if width:
                matrix[:, start : start + width] = _walsh(matrix[:, start : start + width])
                start += width
    return matrix


def _walsh(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the orthonormal Walsh-Hadamard transform of each row; their length is a power of two."""
    count, width = rows.shape
    half = 1
    while half < width:
        pairs = rows.reshape(count, -1, 2, half)
        rows = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    return np.asarray(rows.reshape(count, width) / np.sqrt(width))


def _normals(count: int, random: np.random.PCG64) -> NDArray[np.float64]:
    # Box-Muller on raw bits: NumPy guarantees the stream of bits, not that of its distributions.
    bits = random.random_raw(2 * count) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**53
    return np.asarray(np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:]))
