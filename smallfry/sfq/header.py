"""The header of a ``.sfq`` file: the rules of the format beyond those of safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from smallfry.sfq import safetensors
from smallfry.sfq.metadata import check_version
from smallfry.sfq.safetensors import DTYPES, PREFIX, TensorEntry, dtype_name

MAX_HEADER = 1 << 16
"""Longest JSON header that is read; one that smallfry writes takes about 2 KB before padding."""

DATA_ALIGNMENT = 4096
"""The data starts at a multiple of this, so that a mapped tensor is as aligned as in the file."""


@dataclass(frozen=True)
class Header:
    """A header whose structure has been checked against the size of the file."""

    tensors: dict[str, TensorEntry]  # in the order of their bytes, which are contiguous and end the file
    metadata: dict[str, str]  # of ``__metadata__``; the values are not checked here
    data_start: int  # file offset of the first data byte
    digest: str  # SHA-256 of the header. It identifies the content: the metadata has that of each tensor


def build_header(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Return the header for `arrays`, and their names in the order in which their bytes must follow.

    The order is that of the safetensors package: widest dtype first, then by name; but codes in blocks of a
    page are the first, so that each is a page of the file.
    """
    order = list(DTYPES)
    names = sorted(arrays, key=lambda name: (order.index(dtype_name(arrays[name].dtype)), name))
    if metadata.get("layout") == "paged" and arrays["codes"].shape[1] == DATA_ALIGNMENT:
        names.sort(key=lambda name: name != "codes")
    raw = safetensors.build_header([(name, arrays[name]) for name in names], metadata, DATA_ALIGNMENT)
    if len(raw) - PREFIX > MAX_HEADER:
        raise HeaderSizeError(
            f"the header would take {len(raw) - PREFIX:,} bytes, and at most {MAX_HEADER:,} are read. "
            "Please shorten the metadata."
        )
    return raw, names


def header_end(start: bytes, file_size: int) -> int:
    """Return the file offset at which the header ends, given the file's first 9 bytes."""
    if file_size <= PREFIX:
        raise TruncatedError(
            f"the file has {file_size} bytes, and a header takes more than {PREFIX}. "
            "Please copy or compress it again."
        )
    if start[PREFIX : PREFIX + 1] != b"{":
        raise NotSfqError(
            "this is not a .sfq file: no JSON header starts at byte 8. Make one with `smallfry compress`."
        )
    length = int.from_bytes(start[:PREFIX], "little")
    if length > MAX_HEADER:
        raise HeaderSizeError(
            f"the header declares {length:,} bytes, and at most {MAX_HEADER:,} are read. "
            "The file is damaged, or not a .sfq file."
        )
    if PREFIX + length > file_size:
        raise TruncatedError(
            f"the header declares {length:,} bytes, and the whole file has {file_size:,}. "
            "Please copy it again."
        )
    return PREFIX + length


def parse_header(raw: bytes, file_size: int) -> Header:
    """Check the structure of a whole header, which is the file up to `header_end`."""
    entries, metadata = safetensors.parse_header(raw[PREFIX:], _syntax_error)
    if metadata.get("format") != "sfq":
        raise NotSfqError(
            f"this is a safetensors file with format={metadata.get('format')!r} in its metadata, "
            "expected 'sfq'. Make a .sfq file of one of its tensors with `smallfry compress --tensor NAME`."
        )
    check_version(metadata)
    tensors = {name: safetensors.parse_entry(name, entry, _syntax_error) for name, entry in entries.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(tensors, len(raw), file_size)
    return Header(tensors, metadata, len(raw), hashlib.sha256(raw).hexdigest())


def _syntax_error(reason: str) -> HeaderSyntaxError:
    return HeaderSyntaxError(f"{reason}. The file is damaged.")


def _check_layout(tensors: Mapping[str, TensorEntry], data_start: int, file_size: int) -> None:
    # Proof that every [begin, end) is inside the data: each begins where the one before ended, none ends
    # before it begins, and the last ends with the file. Python's integers do not overflow.
    if data_start % DATA_ALIGNMENT:
        raise AlignmentError(
            f"the data starts at byte {data_start:,}, which is not a multiple of {DATA_ALIGNMENT}. "
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
