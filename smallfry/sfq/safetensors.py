"""The header of a ``.sfq`` file: a safetensors header, padded to a page, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import (
    AlignmentError,
    HeaderSizeError,
    HeaderSyntaxError,
    LayoutError,
    NotSfqError,
    OffsetError,
    TruncatedError,
)
from smallfry.sfq.metadata import check_version

PREFIX = 8
"""Bytes before the JSON: its length, little-endian."""

MAX_HEADER = 1 << 20
"""Longest JSON header that is read; one that smallfry writes takes about 2 KB before padding."""

DATA_ALIGNMENT = 4096
"""The first data byte stands at a multiple of this, so that a mapped tensor is as aligned as in the file."""

DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
"""The dtypes of the format in the order in which tensors are laid out: widest first."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: `begin` and `end` count from the first data byte."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header whose structure has been checked against the size of the file.

    Attributes
    ----------
    tensors : dict of str to TensorEntry
        In the order of their bytes. Offsets are inside the file, contiguous, and cover it.
    metadata : dict of str to str
        The strings of ``__metadata__``; their values are not checked here.
    data_start : int
        File offset of the first data byte.
    digest : str
        SHA-256 of the header's bytes. It identifies the content, since the metadata holds the SHA-256
        of every tensor.
    """

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int
    digest: str


def build_header(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Return the header for `arrays`, and their names in the order in which their bytes must follow.

    The order is safetensors' own: widest dtype first, then by name.
    """
    order = list(DTYPES)
    dtypes = {name: dtype_name(array.dtype) for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (order.index(dtypes[name]), name))
    content: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        begin, end = end, end + arrays[name].nbytes
        content[name] = {
            "dtype": dtypes[name],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    length = -(-(PREFIX + len(text)) // DATA_ALIGNMENT) * DATA_ALIGNMENT - PREFIX
    if length > MAX_HEADER:
        raise HeaderSizeError(
            f"the header would take {length:,} bytes, and at most {MAX_HEADER:,} are read. "
            "Please shorten the metadata."
        )
    return length.to_bytes(PREFIX, "little") + text.ljust(length), names


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the safetensors name of a NumPy dtype that the format knows."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def header_end(start: bytes, file_size: int) -> int:
    """Return the file offset at which the header ends, given the file's first 9 bytes.

    Raises
    ------
    TruncatedError, NotSfqError, HeaderSizeError
        When no header that may be read fits into the file.
    """
    if file_size <= PREFIX:
        raise TruncatedError(
            f"the file has {file_size} bytes, and a header alone takes more than {PREFIX}. "
            "Please copy or compress it again."
        )
    if start[PREFIX : PREFIX + 1] != b"{":
        raise NotSfqError(
            "this is no .sfq file: no JSON header stands at byte 8. Make one with `smallfry compress`."
        )
    length = int.from_bytes(start[:PREFIX], "little")
    if length > MAX_HEADER:
        raise HeaderSizeError(
            f"the header claims {length:,} bytes, and at most {MAX_HEADER:,} are read. "
            "The file is damaged, or no .sfq file."
        )
    if PREFIX + length > file_size:
        raise TruncatedError(
            f"the header claims {length:,} bytes, and the file has {file_size:,} in all. "
            "Please copy it again."
        )
    return PREFIX + length


def parse_header(raw: bytes, file_size: int) -> Header:
    """Check the structure of a whole header: the 8 bytes of its length and the JSON.

    Parameters
    ----------
    raw : bytes
        The file up to `header_end`.
    file_size : int
        Bytes in the whole file.

    Raises
    ------
    SfqError
        The class that names the first rule found broken.
    """
    content = _parse_json(raw[PREFIX:])
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderSyntaxError("__metadata__ is not an object of strings. The file is damaged.")
    if metadata.get("format") != "sfq":
        raise NotSfqError(
            f"this is a safetensors file with format={metadata.get('format')!r} in its metadata, "
            "expected 'sfq'. Make a .sfq file of one of its tensors with `smallfry compress --tensor NAME`."
        )
    check_version(metadata)
    entries = {name: _entry(name, value) for name, value in content.items()}
    tensors = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(tensors, len(raw), file_size)
    return Header(tensors, metadata, len(raw), hashlib.sha256(raw).hexdigest())


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique_names,
            parse_int=_short_int,
            parse_constant=_no_constant,
        )
        # A lone surrogate, which JSON can escape, has no UTF-8 form.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise HeaderSyntaxError(f"the header is not valid JSON: {reason}. The file is damaged.") from None
    if not isinstance(content, dict):
        raise HeaderSyntaxError(f"the header is a JSON {type(content).__name__}, expected an object.")
    return content


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {name!r} stands twice")
        content[name] = value
    return content


def _short_int(digits: str) -> int:
    # 20 digits hold every 64-bit number; converting a million of them would take seconds.
    if len(digits) > 20:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _entry(name: str, value: Any) -> TensorEntry:  # noqa: ANN401 - any JSON value
    if not isinstance(value, dict):
        raise HeaderSyntaxError(f"the entry of tensor {name!r} is not an object. The file is damaged.")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not _is_sizes(shape)
        or not _is_sizes(offsets)
        or len(offsets) != 2
        or value.keys() != {"dtype", "shape", "data_offsets"}
    ):
        raise HeaderSyntaxError(
            f"the entry of tensor {name!r} is not {{dtype, shape, data_offsets}} "
            "with a string, sizes and two offsets. The file is damaged."
        )
    return TensorEntry(dtype, tuple(shape), *offsets)


def _is_sizes(value: Any) -> TypeGuard[list[int]]:  # noqa: ANN401 - any JSON value
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_layout(tensors: Mapping[str, TensorEntry], data_start: int, file_size: int) -> None:
    # Python's integers do not overflow. Once this has passed, every [begin, end) is inside the data: each
    # begins where the one before ended, none ends before it begins, and the last ends with the file.
    if data_start % DATA_ALIGNMENT:
        raise AlignmentError(
            f"the data starts at byte {data_start:,}, which is no multiple of {DATA_ALIGNMENT}. "
            "The file was rewritten by another tool; please compress it again."
        )
    available = file_size - data_start
    position = 0
    for name, entry in tensors.items():
        if entry.end < entry.begin:
            raise OffsetError(f"tensor {name!r} ends at {entry.end:,}, before it begins at {entry.begin:,}.")
        if entry.begin != position:
            relation = "leaves a hole after" if entry.begin > position else "overlaps"
            raise LayoutError(
                f"tensor {name!r} begins at {entry.begin:,}, expected {position:,}: "
                f"it {relation} the one before. The file is damaged."
            )
        if entry.end > available:
            raise TruncatedError(
                f"tensor {name!r} ends at data byte {entry.end:,}, and the file has {available:,}. "
                "Please copy it again."
            )
        position = entry.end
    if position != available:
        raise LayoutError(f"the tensors end at data byte {position:,}, and the file has {available:,}.")


def check_span(name: str, entry: TensorEntry) -> None:
    """Raise OffsetError unless the offsets of a tensor span the bytes of its shape."""
    expected = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
    if entry.end - entry.begin != expected:
        raise OffsetError(
            f"tensor {name!r} spans {entry.end - entry.begin:,} bytes, and its shape {list(entry.shape)} "
            f"of {entry.dtype} takes {expected:,}. The file is damaged."
        )
