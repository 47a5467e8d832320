"""Stored values of a matrix as float32: floating dtypes of 8 to 64 bits, and int8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.sfq.safetensors import BFLOAT16, FLOAT8_E4M3, FLOAT8_E5M2, FLOAT8_E8M0


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the values as a contiguous float32 array; those beyond float32 become infinite."""
    if values.dtype == np.float32 and values.dtype.isnative:
        return np.ascontiguousarray(values)
    out = np.empty(values.shape, np.float32)
    convert(values, out)
    return out


def convert(values: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Write the values to a float32 array of the same shape; those beyond float32 become infinite."""
    table = _FLOAT8.get(values.dtype)
    if values.dtype == BFLOAT16:
        np.left_shift(values["bfloat16"], 16, out=out.view(np.uint32), dtype=np.uint32)
    elif table is not None:
        np.take(table, values.view(np.uint8), out=out, mode="clip")
    else:
        with np.errstate(over="ignore"):
            np.copyto(out, values, casting="unsafe")


def _e4m3() -> NDArray[np.float32]:
    codes = np.arange(128)
    exponent, fraction = codes >> 3, codes & 7
    positive = np.where(exponent == 0, np.ldexp(fraction, -9), np.ldexp(8 + fraction, exponent - 10))
    positive[127] = np.nan
    return np.concatenate([positive, -positive]).astype(np.float32)


def _e5m2() -> NDArray[np.float32]:
    return (np.arange(256, dtype=np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)


def _e8m0() -> NDArray[np.float32]:
    powers = np.ldexp(1.0, np.arange(256) - 127)
    powers[255] = np.nan
    return powers.astype(np.float32)


# The value of each byte.
_FLOAT8 = {FLOAT8_E4M3: _e4m3(), FLOAT8_E5M2: _e5m2(), FLOAT8_E8M0: _e8m0()}
