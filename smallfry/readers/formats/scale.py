"""Scales of quantized matrices (int8 and fp8), which multiply their values."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.listing import cut, listing, shape_text

MAX_FACTORS = 1 << 26
"""Most values of a scale that is held in memory."""

_SCALES = ("_scale", "_scale_inv", "_scales", ".scale", ".scales", ".scale_weight", ".SCB")
_ZERO_POINTS = ("_zero_point", ".zero_point", ".qzeros")
_NAMES = tuple(suffix[1:] for suffix in _SCALES + _ZERO_POINTS)

_QUANTIZED = re.compile(r"(?<=\.)_data$|(?<=\._weight)_qdata$")
"""Ends of the names of values by optimum-quanto and torchao; ``_scale`` takes its place."""

_BLOCKS = tuple(1 << bits for bits in range(5, 20))


class Rows(Protocol):
    """Rows of a matrix that can be read in any order."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def read(self, first: int, out: NDArray[np.float32]) -> None:
        """Write the rows from row `first` on to `out`."""
        ...


class Scale:
    """Factors of the blocks of a matrix.

    Parameters
    ----------
    name : str
        Name of the tensor of factors. ``SCB`` (bitsandbytes) has the value of 127 instead of that of 1.
    factors : ndarray of float32, or Rows
        In a shape that `block_shape` accepts; rows that can be read again have two dimensions.
    block : tuple of int
        Height and width of the blocks.
    """

    def __init__(self, name: str, factors: NDArray[np.float32] | Rows, block: tuple[int, int]) -> None:
        self.name = name
        self._height, self._width = block
        if isinstance(factors, np.ndarray):
            factors = factors.reshape(-1, factors.shape[1] if factors.ndim == 2 else 1)
        self._factors = factors

    def multiply(self, vectors: NDArray[np.float32], first: int) -> None:
        """Multiply consecutive rows of the matrix, from row `first` on, by their factors, in place."""
        count, dim = vectors.shape
        if not count:
            return
        numbers = np.arange(first, first + count) // self._height
        begin, end = int(numbers[0]), int(numbers[-1]) + 1
        if isinstance(self._factors, np.ndarray):
            factors = self._factors[begin:end]
        else:
            factors = np.empty((end - begin, self._factors.shape[1]), np.float32)
            self._factors.read(begin, factors)
        if self.name.endswith("SCB"):
            factors = factors / np.float32(127)
        if factors.shape[1] > 1:
            factors = np.repeat(factors, self._width, axis=1)[:, :dim]
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(vectors, factors[numbers - begin], out=vectors)


def block_shape(name: str, factors: tuple[int, ...], matrix: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and width of the blocks that have one factor each.

    Parameters
    ----------
    name : str
        Name of the tensor of factors, for the message.
    factors : tuple of int
        Its shape: one value, ``[rows]``, ``[rows, 1]``, or ``[ceil(rows / height), ceil(dim / width)]``.
        Height and width are powers of two from 32 (usually 128), or divide the matrix evenly.
    matrix : tuple of int
        Shape of the matrix.

    Raises
    ------
    InputError
        The shapes do not match.
    """
    rows, dim = matrix
    if math.prod(factors) == 1:
        return max(rows, 1), dim
    if factors == (rows,):
        return 1, dim
    height, width = map(_block, matrix, factors) if len(factors) == 2 else (0, 0)
    if not height or not width:
        raise InputError(
            f"{name} is a scale of shape {shape_text(factors)}, expected one value, [{rows}], [{rows}, 1], "
            f"or one for each block of the matrix {shape_text(matrix)}. Please save the matrix as float32."
        )
    return height, width


def check_in_memory(name: str, factors: tuple[int, ...]) -> None:
    """Raise InputError if a scale of this shape is too large to be held in memory."""
    size = math.prod(factors)
    if size > MAX_FACTORS:
        raise InputError(f"{name} has {size:,} values, the limit for a scale is {MAX_FACTORS:,}.")


def scale_names(tensor: str) -> list[str]:
    """Return the names under which quantization libraries store the scale of `tensor`."""
    return _neighbors(tensor, _SCALES)


def find_scale(tensor: str, names: Container[str]) -> str | None:
    """Return the name of the scale of `tensor`; raise InputError if there are several."""
    found = [name for name in scale_names(tensor) if name in names]
    if len(found) > 1:
        shown = listing(found, 200)
        raise InputError(f"{cut(tensor, 100)} has {len(found)} scales: {shown}. Please save it as float32.")
    return found[0] if found else None


def find_zero_point(tensor: str, names: Container[str]) -> str | None:
    """Return the name of the zero point of `tensor`, which asymmetric quantization subtracts."""
    return next((name for name in _neighbors(tensor, _ZERO_POINTS) if name in names), None)


def is_auxiliary(tensor: str) -> bool:
    """Return whether the name is that of a scale or a zero point."""
    return tensor.endswith(_NAMES)


def _neighbors(tensor: str, suffixes: Sequence[str]) -> list[str]:
    layer, dot, leaf = tensor.rpartition(".")
    names = [_QUANTIZED.sub("", tensor) + suffix for suffix in suffixes]
    if leaf == "weight" or not layer:
        names += [layer + dot + suffix[1:] for suffix in suffixes if suffix[0] == "."]
    return names


def _block(size: int, count: int) -> int:
    """Return the length of the blocks if `count` of them cover `size` values; 0 if none does."""
    if not 1 <= count <= size:
        return 0
    even = 0 if size % count else size // count
    return next((length for length in _BLOCKS if -(-size // length) == count), even)
