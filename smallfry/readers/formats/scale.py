"""Scales of quantized matrices (int8 and fp8), which multiply their values."""

from __future__ import annotations

import math
import re
from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.listing import cut, listing, shape_text

MAX_FACTORS = 1 << 26
"""Most values of a scale, which is held in memory."""

_SCALES = ("_scale", "_scale_inv", "_scales", ".scale", ".scales")
_SCALES_OF_LAYER = ("weight_scale", "weight_scale_inv", "scale", "scales", "scale_weight", "SCB")
_ZERO_POINTS = ("_zero_point", "_zeros", "_shift", ".zero_point")
_ZERO_POINTS_OF_LAYER = ("weight_zero_point", "zero_point", "zeros", "qzeros")

_ABSMAX = "SCB"  # bitsandbytes: the largest magnitude of each row, stored as 127
_DATA = re.compile(r"(?<=\.)_data$|(?<=\._weight)_qdata$")
"""Ends of names of values, by optimum-quanto and torchao; ``_scale`` takes its place."""

_POWERS = tuple(1 << bits for bits in range(20))


class Scale:
    """Factors of the values of a matrix ``[rows, dim]``.

    Parameters
    ----------
    name : str
        Name of the tensor of factors.
    factors : ndarray
        float32, in a shape that `block_shape` accepts.
    shape : tuple of int
        Shape of the matrix.
    """

    def __init__(self, name: str, factors: NDArray[np.float32], shape: tuple[int, ...]) -> None:
        self.name = name
        self._height, self._width = block_shape(name, factors.shape, shape)
        self._dim = shape[1]
        self._factors = factors.reshape(-1, -(-self._dim // self._width))

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """Return the factors of rows `begin` to `end` as a float32 array that broadcasts to them."""
        factors = self._factors[np.arange(begin, end) // self._height]
        if factors.shape[1] == 1:
            return factors
        return np.repeat(factors, self._width, axis=1)[:, : self._dim]


def block_shape(name: str, factors: tuple[int, ...], matrix: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the blocks that have one factor each.

    Parameters
    ----------
    name : str
        Name of the tensor of factors, for the message.
    factors : tuple of int
        Its shape: one value, ``[rows]``, ``[rows, 1]``, or ``[ceil(rows / height), ceil(dim / width)]``.
        Height and width are powers of two from 32 (usually 128), or divide the matrix evenly, or are smaller
        powers of two.
    matrix : tuple of int
        Shape of the matrix.

    Raises
    ------
    InputError
        The shapes do not match.
    """
    rows, dim = matrix
    if math.prod(factors) > MAX_FACTORS:
        raise InputError(
            f"{name} has {math.prod(factors):,} values, the limit for a scale is {MAX_FACTORS:,}."
        )
    if math.prod(factors) == 1:
        return max(rows, 1), max(dim, 1)
    if factors == (rows,):
        return 1, max(dim, 1)
    height, width = map(_block, matrix, factors) if len(factors) == 2 else (0, 0)
    if not height or not width:
        raise InputError(
            f"{name} is a scale of shape {shape_text(factors)}, expected one value, [{rows}], [{rows}, 1], "
            f"or one for each block of the matrix {shape_text(matrix)}. Please save the matrix as float32."
        )
    return height, width


def scale_names(tensor: str) -> list[str]:
    """Return the names under which quantization libraries store the scale of `tensor`."""
    return _neighbors(tensor, _SCALES, _SCALES_OF_LAYER)


def find_scale(tensor: str, names: Container[str]) -> str | None:
    """Return the name of the scale of `tensor`; raise InputError if there are several."""
    found = [name for name in scale_names(tensor) if name in names]
    if len(found) > 1:
        shown = listing(found, 200)
        raise InputError(f"{cut(tensor, 100)} has {len(found)} scales: {shown}. Please save it as float32.")
    return found[0] if found else None


def find_zero_point(tensor: str, names: Container[str]) -> str | None:
    """Return the name of the zero point of `tensor`, which asymmetric quantization subtracts."""
    candidates = _neighbors(tensor, _ZERO_POINTS, _ZERO_POINTS_OF_LAYER)
    return next((name for name in candidates if name in names), None)


def factors_of(name: str, stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors for a stored scale."""
    return stored / np.float32(127) if name.rpartition(".")[2] == _ABSMAX else stored


def is_auxiliary(tensor: str) -> bool:
    """Return whether the name is that of a scale or a zero point."""
    return tensor.endswith((*_SCALES, *_SCALES_OF_LAYER, *_ZERO_POINTS, *_ZERO_POINTS_OF_LAYER))


def _neighbors(tensor: str, suffixes: tuple[str, ...], siblings: tuple[str, ...]) -> list[str]:
    stem = _DATA.sub("", tensor)
    if stem != tensor:
        return [stem + suffix for suffix in suffixes if suffix[0] == "_"]
    layer, dot, leaf = tensor.rpartition(".")
    names = [tensor + suffix for suffix in suffixes]
    if leaf.startswith("weight") or not dot:
        names += [layer + dot + sibling for sibling in siblings]
    return list(dict.fromkeys(names))


def _block(size: int, count: int) -> int:
    """Return the length of the blocks if `count` of them cover `size` values; 0 if none does."""
    if not 1 <= count <= size:
        return 0
    if count == 1:
        return size
    power = next((power for power in _POWERS if -(-size // power) == count), 0)
    return power if power >= 32 or size % count else size // count
