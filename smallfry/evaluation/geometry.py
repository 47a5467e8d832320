"""Distance between a matrix X and its compressed form X̃, computed from ``dim`` × ``dim`` Gram matrices.

One pass over both matrices accumulates the Gram matrices of X and of the error D = X − X̃, from which X̃ᵀX̃ and
XᵀX̃ follow. The measures are exact up to float64 rounding, at any number of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.evaluation.vectors import Vectors, blocks
from smallfry.progress import Progress

_Matrix = NDArray[np.float64]

DECIBELS_A_BIT = 20 * math.log10(2)
"""SNR of one bit a value at the rate-distortion bound of independent Gaussian values: 6.02 dB."""


@dataclass(frozen=True)
class Geometry:
    """Distance between a matrix X and its compressed form X̃.

    Attributes
    ----------
    frobenius_error : float
        ``||X − X̃|| / ||X||``, Frobenius norms.
    eigenspace_overlap : float
        ``||UᵀŨ||² / max(rank X, rank X̃)``, U and Ũ the left singular vectors: 1 if both span the same space.
        The best predictor of downstream quality in May, Zhang, Dao and Ré, "On the Downstream Performance of
        Compressed Word Embeddings" (2019).
    pip_loss : float
        ``||XXᵀ − X̃X̃ᵀ|| / ||XXᵀ||``, the pairwise inner product loss of Yin and Shen (2018), relative.
    fit_error : float
        ``min over W of ||X − X̃W|| / ||X||``, the error that remains after the best linear map of X̃.
    """

    frobenius_error: float
    eigenspace_overlap: float
    pip_loss: float
    fit_error: float

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in dB; infinite if X̃ equals X."""
        return -20 * math.log10(self.frobenius_error) if self.frobenius_error else math.inf


def compare(original: Vectors, compressed: Vectors, progress: Progress | None = None) -> Geometry:
    """Measure the distance between a matrix and its compressed form, with the same item in each row."""
    if original.shape != compressed.shape:
        raise InputError(
            f"the original has shape {list(original.shape)} and the compressed {list(compressed.shape)}; "
            "both must hold the same rows."
        )
    gram, mixed, noise = _grams(original, compressed, progress)
    compressed_gram = gram - mixed - mixed.T + noise
    cross = gram - mixed
    signal = float(np.trace(gram))
    if signal == 0.0:
        return Geometry(0.0, 1.0, 0.0, 0.0)
    whitened = _whitener(gram).T @ cross @ _whitener(compressed_gram)
    # ||XXᵀ − X̃X̃ᵀ||² = ||XDᵀ + DX̃ᵀ||², which avoids the cancellation of a difference of squares.
    pip = np.sum(gram * noise) + np.sum(compressed_gram * noise) + 2 * np.sum(mixed.T * (mixed - noise))
    fitted = float(np.square(cross @ _whitener(compressed_gram)).sum())
    return Geometry(
        frobenius_error=math.sqrt(float(np.trace(noise)) / signal),
        eigenspace_overlap=float(np.square(whitened).sum()) / max(whitened.shape),
        pip_loss=math.sqrt(max(0.0, float(pip))) / float(np.linalg.norm(gram)),
        fit_error=math.sqrt(max(0.0, signal - fitted) / signal),
    )


def _grams(
    original: Vectors, compressed: Vectors, progress: Progress | None
) -> tuple[_Matrix, _Matrix, _Matrix]:
    """Return XᵀX, XᵀD and DᵀD for D = X − X̃."""
    dim = original.shape[1]
    total = np.zeros((2 * dim, 2 * dim))
    for ids in blocks(original.shape, "geometry", progress):
        x = original.take(ids).astype(np.float64)
        both = np.concatenate([x, x - compressed.take(ids)], axis=1)
        total += both.T @ both
    return total[:dim, :dim], total[:dim, dim:], total[dim:, dim:]


def _whitener(gram: _Matrix) -> _Matrix:
    """Return W ``[dim, rank]`` such that XW has orthonormal columns, from XᵀX."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * len(gram) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
