"""Encode groups of values by a grouped codebook with NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GROUPS_AT_A_TIME = 1 << 13


def encode_groups(
    x: NDArray[np.float32], codebook: NDArray[np.float32], codes: NDArray[np.uint8], threads: int
) -> None:
    """Write the nearest row of ``codebook`` [256, group] for each group of values of ``x`` [rows, dim].

    The nearest row has the largest dot product less half its squared length, summed in float32 from first to
    last value; ties go to the first row. A shorter last group is compared by its own values only.
    """
    group = codebook.shape[1]
    for byte in range(codes.shape[1]):
        points = x[:, byte * group : (byte + 1) * group]
        centroids = codebook[:, : points.shape[1]]
        halves = np.zeros(len(codebook), np.float32)
        for column in centroids.T:
            halves += column * column
        halves *= np.float32(0.5)
        for start in range(0, len(points), _GROUPS_AT_A_TIME):
            part = points[start : start + _GROUPS_AT_A_TIME]
            scores = part[:, :1] * centroids[:, 0]
            for j in range(1, centroids.shape[1]):
                scores += part[:, j : j + 1] * centroids[:, j]
            codes[start : start + len(part), byte] = (scores - halves).argmax(axis=1)
