"""The safetensors header: build one for named arrays, parse one from untrusted bytes.

A safetensors file is the length of the header as 8 little-endian bytes, the header as a JSON object, and the
bytes of the tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np

PREFIX = 8
"""Bytes of the header's length."""

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""NumPy has no bfloat16, which is the upper half of a float32."""

FLOAT8_E4M3 = np.dtype([("float8_e4m3fn", "u1")])
FLOAT8_E5M2 = np.dtype([("float8_e5m2", "u1")])
FLOAT8_E8M0 = np.dtype([("float8_e8m0fnu", "u1")])

DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "U16": np.dtype("<u2"),
    "F8_E4M3": FLOAT8_E4M3,
    "F8_E5M2": FLOAT8_E5M2,
    "F8_E8M0": FLOAT8_E8M0,
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The dtypes that smallfry reads or writes, the widest first."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_MAX_DIGITS = 20  # of a 64-bit number; converting a million digits takes seconds

MakeError = Callable[[str], Exception]
"""Returns the exception to raise for a violated rule, which it gets as a phrase without a full stop."""


class Tensor(Protocol):
    """An array, or what has the size of one."""

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def nbytes(self) -> int: ...  # noqa: D102


class TensorEntry(NamedTuple):
    """Where a tensor lies: `begin` and `end` count from the first data byte."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def build_header(
    tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str], alignment: int = 8
) -> bytes:
    """Return the length and header of a file whose tensors follow in the given order.

    The header is padded with spaces so that the data starts at a multiple of `alignment`.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, tensor in tensors:
        end = begin + tensor.nbytes
        header[name] = {
            "dtype": dtype_name(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    length = len(text) + -(PREFIX + len(text)) % alignment
    return length.to_bytes(PREFIX, "little") + text.ljust(length)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the safetensors name of a NumPy dtype."""
    return _NAMES[dtype]


def parse_header(text: bytes, error: MakeError) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the raw entries and the metadata of a JSON header.

    Names must be unique, numbers short, and strings valid Unicode; entries are checked by `parse_entry`.
    """
    try:
        header = decode_json(text)
    except (ValueError, RecursionError) as invalid:
        raise error(f"the header is not valid JSON: {str(invalid) or type(invalid).__name__}") from None
    if not isinstance(header, dict):
        raise error(f"the header is a JSON {type(header).__name__}, expected an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise error("__metadata__ is not an object of strings")
    return header, metadata


def decode_json(text: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value whose names are unique, numbers short, and strings valid Unicode.

    Raises
    ------
    ValueError, RecursionError
        The text is anything else.
    """
    value = _DECODER.decode(text.decode("utf-8"))
    if b"\\u" in text:  # an escaped lone surrogate has no UTF-8 form
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def parse_entry(name: str, entry: Any, error: MakeError) -> TensorEntry:  # noqa: ANN401 - any JSON value
    """Check the form of a raw entry; its numbers are not negative, and otherwise arbitrary."""
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = values.get("dtype"), values.get("shape"), values.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not _are_sizes(shape)
        or not _are_sizes(offsets)
        or len(offsets) != 2
        or len(values) != 3
    ):
        raise error(
            f"the entry of tensor {name!r} is not {{dtype, shape, data_offsets}} "
            "with a string, sizes and two offsets"
        )
    return TensorEntry(dtype, tuple(shape), *offsets)


def tensor_dtype(name: str, entry: TensorEntry, error: MakeError) -> np.dtype[Any]:
    """Return the NumPy dtype of a tensor after checking that its offsets span the bytes of its shape."""
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise error(f"tensor {name!r} has dtype {entry.dtype!r}, expected one of {', '.join(DTYPES)}")
    expected = math.prod(entry.shape) * dtype.itemsize
    if entry.end - entry.begin != expected:
        raise error(
            f"tensor {name!r} spans {entry.end - entry.begin:,} bytes, and its shape {list(entry.shape)} "
            f"of {entry.dtype} takes {expected:,}"
        )
    return dtype


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {name!r} occurs twice")
        content[name] = value
    return content


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_names, parse_int=_short_int, parse_constant=_no_constant
)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:  # noqa: ANN401 - any JSON value
    return isinstance(value, list) and {*map(type, value)} <= {int} and min(value, default=0) >= 0
