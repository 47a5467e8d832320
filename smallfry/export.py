"""Export a store to a file of vectors, in constant memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels


def format_rows(vectors: NDArray[np.float32]) -> list[str]:
    """Return rows as text: values with the shortest digits of the same float32, and spaces between them."""
    buf, offsets = kernels.format_rows(np.ascontiguousarray(vectors))
    text = buf.tobytes().decode("ascii")
    return [text[begin:end] for begin, end in pairwise(offsets.tolist())]
