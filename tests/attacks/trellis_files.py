"""Crafted ``.sfq`` files of trellis codes: codebooks, column scales and rotations that do not fit."""

from __future__ import annotations

import numpy as np

from smallfry.errors import (
    CodebookError,
    CodeError,
    OffsetError,
    RotationError,
    ShapeError,
)
from tests.attacks.crafting import LARGE, accepted, rejected_by_open, rejected_by_verify
from tests.helpers.crafted_files import Crafted


def with_trellis(values: int = 256, /, **arrays: np.ndarray) -> bytes:
    """Return a valid file of trellis codes, with a codebook of `values` and some arrays replaced."""
    crafted = Crafted.trellis(values)
    crafted.add(**arrays)
    return crafted.raw()


@rejected_by_open(CodebookError)
def trellis_without_values() -> bytes:
    """A codebook of no values, so that no window has one."""
    return with_trellis(0)


@rejected_by_open(CodebookError)
def trellis_of_1_value() -> bytes:
    """A codebook of one value, indexed by windows of 0 bits."""
    return with_trellis(1)


@rejected_by_open(CodebookError)
def trellis_of_255_values() -> bytes:
    """A codebook that lacks the value of the last window."""
    return with_trellis(255)


@rejected_by_open(CodebookError)
def trellis_of_128_values() -> bytes:
    """A codebook of 2**7 values, one bit less than the shortest window."""
    return with_trellis(1 << 7)


@rejected_by_open(CodebookError)
def trellis_of_131072_values() -> bytes:
    """A codebook of 2**17 values, one bit more than the longest window."""
    return with_trellis(1 << 17)


@rejected_by_open(OffsetError)
def trellis_of_2_to_the_40_values() -> bytes:
    """A codebook of 2**40 values is declared, over the bytes of 256."""
    crafted = Crafted.trellis()
    crafted.entries["codebook"] = {"shape": [1 << 40]}
    return crafted.raw()


@rejected_by_open(CodebookError)
def window_longer_than_a_row() -> bytes:
    """Windows of 16 bits over rows of 10, which would have some of their bits twice."""
    return with_trellis(1 << 16)


@rejected_by_open(CodebookError)
def row_of_one_value() -> bytes:
    """Windows of 8 bits over rows of 2, which take one byte."""
    crafted = Crafted.trellis()
    crafted.add(codes=np.zeros((4, 1), np.uint8), column_scale=np.ones(1, np.float32))
    crafted.metadata["dim"] = "1"
    return crafted.raw()


@rejected_by_open(CodebookError)
def uniform_codes_of_3_bits() -> bytes:
    """3 bits a value, which only trellis codes have, and a codebook for them."""
    crafted = Crafted()
    crafted.add(codebook=np.zeros(8, np.float32))
    crafted.metadata["nbit"] = "3"
    return crafted.raw()


@rejected_by_open(CodebookError)
def trellis_of_8_bits() -> bytes:
    """8 bits a value, for which no trellis codes are defined."""
    crafted = Crafted.trellis()
    crafted.add(codes=np.zeros((4, 5), np.uint8))
    crafted.metadata["nbit"] = "8"
    return crafted.raw()


@rejected_by_open(CodeError)
def trellis_of_nan() -> bytes:
    """A codebook of NaN."""
    return with_trellis(codebook=np.full(256, np.nan, np.float32))


@rejected_by_verify(CodeError)
def ring_with_unused_bits() -> bytes:
    """Bits after the last value of a row are set, which a window that ends at a byte would take."""
    return with_trellis(codes=np.full((4, 2), 255, np.uint8))


@rejected_by_open(CodeError)
def column_scales_of_nan() -> bytes:
    """Column scales that decode to NaN and infinity."""
    return with_trellis(column_scale=np.array([np.nan, np.inf, -np.inf, 0, 1], np.float32))


@rejected_by_open(ShapeError)
def column_scales_that_are_missing() -> bytes:
    """Four column scales for rows of five values."""
    return with_trellis(column_scale=np.ones(4, np.float32))


@rejected_by_open(CodebookError)
def column_scales_of_a_uniform_table() -> bytes:
    """Column scales, which only trellis codes have, in a table of uniform ones."""
    crafted = Crafted()
    crafted.add(column_scale=np.ones(5, np.float32))
    return crafted.raw()


@accepted
def column_scales_that_overflow() -> bytes:
    """Values, column and row scales whose products exceed float32."""
    return with_trellis(
        codebook=np.full(256, 3e38, np.float32),
        column_scale=np.array([3e38, -3e38, 1e-38, 0, 1], np.float32),
        row_scale=np.array([65504, 65504, 6e-8, 0], np.float16),
    )


@accepted
def column_scales_of_zero() -> bytes:
    """Column scales of 0 and of the smallest subnormal."""
    return with_trellis(column_scale=np.array([0, -0.0, 1e-45, 0, 0], np.float32))


@rejected_by_open(CodebookError)
def rotation_of_a_uniform_table() -> bytes:
    """A rotation, which only trellis codes have, in a table of uniform ones."""
    crafted = Crafted()
    crafted.add(rotation=np.eye(5, dtype=np.float32))
    return crafted.raw()


@rejected_by_open(OffsetError)
def rotation_of_65536_dimensions() -> bytes:
    """A rotation whose matrix would take 17 GB is declared, over no bytes."""
    dim = 1 << 16
    crafted = Crafted.trellis()
    crafted.add(codes=np.zeros((4, dim // 4), np.uint8), column_scale=np.ones(dim, np.float32))
    crafted.add(rotation=np.zeros(0, np.float32))
    crafted.entries["rotation"] = {"shape": [dim, dim]}
    crafted.metadata["dim"] = str(dim)
    return crafted.raw()


@rejected_by_verify(CodeError)
def rotation_of_nan() -> bytes:
    """A rotation of NaN."""
    return with_trellis(rotation=np.full((5, 5), np.nan, np.float32))


@rejected_by_verify(RotationError)
def rotation_that_overflows() -> bytes:
    """A rotation of values whose products exceed float32, so that it is not orthogonal."""
    return with_trellis(rotation=np.full((5, 5), 3e38, np.float32))


@accepted
def trellis_of_65536_values() -> bytes:
    """The largest codebook, over rows of one window: a response with few rows takes more bytes with it."""
    crafted = Crafted.trellis(1 << 16)
    rows = LARGE // 16
    codes = np.random.default_rng(0).integers(0, 256, (rows, 2), np.uint8)
    crafted.add(codes=codes, column_scale=np.ones(8, np.float32))
    crafted.metadata |= {"rows": str(rows), "dim": "8"}
    return crafted.raw()


@accepted
def trellis_rows_of_65536_values() -> bytes:
    """The widest rows and the largest codebook."""
    rows, dim = 64, 1 << 16
    crafted = Crafted.trellis(1 << 16)
    codes = np.random.default_rng(0).integers(0, 256, (rows, dim * 3 // 8), np.uint8)
    crafted.add(codes=codes, column_scale=np.ones(dim, np.float32))
    crafted.metadata |= {"rows": str(rows), "dim": str(dim), "nbit": "3"}
    return crafted.raw()
