"""One matrix of a .safetensors file."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from smallfry.errors import InputError
from smallfry.readers.matrix import BFLOAT16, MatrixRecords
from smallfry.readers.report import ReadReport
from smallfry.readers.stream import InputStream
from smallfry.readers.words import read_words

MAX_HEADER = 100_000_000
"""Longest header, in bytes; the limit of the safetensors package."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
}


def open_safetensors(
    stream: InputStream, words: str | os.PathLike[str] | None, tensor: str | None, report: ReadReport
) -> MatrixRecords:
    """Open the matrix `tensor`, or the only floating-point matrix."""
    header = _read_header(stream)
    name = _choose(stream.name, header, tensor)
    full_name = f"{stream.name}:{name}"
    dtype, shape, begin, end = _entry(full_name, header[name])
    if len(shape) != 2:
        raise InputError(
            f"{full_name} has {len(shape)} dimensions, expected a floating-point matrix [rows, dim]."
        )
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{full_name} takes {end - begin} bytes, but {list(shape)} values of {dtype.itemsize} bytes "
            f"take {math.prod(shape) * dtype.itemsize}. The file is damaged."
        )
    if stream.skip(begin) < begin:
        raise InputError(f"{stream.name} ends before {full_name} begins. Please copy or download it again.")
    packed = None if words is None else read_words(words, report)
    return MatrixRecords(stream, full_name, shape, dtype, words=packed)


def _read_header(stream: InputStream) -> dict[str, Any]:
    size = int.from_bytes(stream.read(8), "little")
    if size > MAX_HEADER:
        raise InputError(f"{stream.name} is not a .safetensors file: its header would take {size:,} bytes.")
    try:
        header = json.loads(stream.read(size))
        metadata = header.pop("__metadata__", {})
        is_sfq = metadata.get("format") == "sfq"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{stream.name} is a damaged .safetensors file: {error}.") from None
    if is_sfq:
        raise InputError(
            f"{stream.name} is a .sfq file: it is already compressed. Please use the file it was made from."
        )
    return header  # type: ignore[no-any-return]


def _choose(name: str, header: dict[str, Any], tensor: str | None) -> str:
    if tensor is not None:
        if tensor not in header:
            shown = ", ".join(list(header)[:10]) + (", …" if len(header) > 10 else "")
            raise InputError(f"{name} has no tensor {tensor!r}. It has {shown or 'none'}.")
        return tensor
    matrices = {
        key: f"{key} {value['dtype']} {value['shape']}"
        for key, value in header.items()
        if isinstance(value, dict)
        and isinstance(value.get("dtype"), str)
        and value["dtype"] in _DTYPES
        and isinstance(value.get("shape"), list)
        and len(value["shape"]) == 2
    }
    if len(matrices) != 1:
        shown = ", ".join(list(matrices.values())[:10]) + (", …" if len(matrices) > 10 else "")
        raise InputError(
            f"{name} has {len(matrices)} floating-point matrices{': ' if shown else ''}{shown}. "
            "Please name the one to read with tensor= (--tensor)."
        )
    return next(iter(matrices))


def _entry(name: str, entry: object) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Return dtype, shape, begin and end of a tensor."""
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = values.get("dtype"), values.get("shape"), values.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"{name} is {dtype}, expected {', '.join(_DTYPES)}.")
    sizes, bounds = _sizes(shape), _sizes(offsets)
    if sizes is None or bounds is None or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise InputError(f"{name} has shape {shape} and data_offsets {offsets}. The file is damaged.")
    return _DTYPES[dtype], sizes, bounds[0], bounds[1]


def _sizes(values: object) -> tuple[int, ...] | None:
    # Limited to 64 bits: multiplying integers as long as a header takes minutes.
    if isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values):
        return tuple(values)
    return None
