"""Format detection from the first bytes of an input."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from smallfry.errors import BadLineError, InputError
from smallfry.kernels.numpy.text import NUMBER
from smallfry.readers.records import MAX_DIM, MAX_LINE, MAX_TOKEN, check_dim
from smallfry.readers.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.tensors import MAX_HEADER

_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 200
_HEADER = re.compile(rb"[ \t]*([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]*\r?")

_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_FOREIGN: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"BZh", "bzip2 data. Please pipe it in: bzip2 -dc FILE | smallfry compress - …"),
    (b"\xfd7zXZ\0", "xz data. Please pipe it in: xz -dc FILE | smallfry compress - …"),
    (b"\x28\xb5\x2f\xfd", "zstd data. Please pipe it in: zstd -dc FILE | smallfry compress - …"),
    (_PICKLES, "a pickle, which can run any code when loaded. Please save the vectors as .npy."),
    (b"\xba\x16\x4f\x2f", "a fastText model. Please use the .vec file that fastText wrote next to it."),
    (b"\x89HDF\r\n", "an HDF5 file. Please save the vectors as .npy."),
    (
        (b"\xff\xfe", b"\xfe\xff"),
        "UTF-16 text. Please convert it: iconv -f UTF-16 -t UTF-8 FILE | smallfry compress - …",
    ),
)


class TextLayout(NamedTuple):
    """Layout of a text file."""

    dim: int
    rows: int | None
    """Rows that the header line declares; None without a header."""
    before: int
    """Bytes before the first row: byte-order mark and header line."""


class Header(NamedTuple):
    """First line of a word2vec file."""

    rows: int
    dim: int
    size: int
    """Bytes of the line, including its newline and a byte-order mark."""


def detect(stream: InputStream) -> str:
    """Return the stream's format; "text" for "glove" or "word2vec", which `find_layout` tells apart."""
    head = stream.peek(64)
    if not head:
        raise InputError(f"{stream.name} is empty, expected vectors.")
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise InputError(f"{stream.name} is {what}")
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors"
    header = find_header(stream)
    if header is not None and _is_binary(stream, header):
        return "word2vec-binary"
    return "text"


def find_header(stream: InputStream) -> Header | None:
    """Return the first line if it is two integers, as in word2vec and fastText files."""
    mark = mark_size(stream)
    line = stream.peek(1 << 10)[mark:].split(b"\n", 1)[0]
    match = _HEADER.fullmatch(line)
    if match is None:
        return None
    return Header(int(match[1]), int(match[2]), mark + len(line) + 1)


def find_layout(stream: InputStream, *, header: bool | None = None) -> TextLayout:
    """Return the dim and the declared rows of a text file.

    A first line of two integers is a header, unless the next lines have one value each and the header
    declares another dim: then it is the first vector of a 1-dimensional GloVe file.
    Without a header, dim is the number of values that most of the first lines end with: tokens may contain
    spaces, so a single line is ambiguous. `header` tells whether the file has one; detected by default.
    """
    found = find_header(stream)
    if header and found is None:
        raise InputError(
            f"{stream.name} does not begin with a line 'rows dim', as word2vec and fastText text does. "
            "Please read it as format 'glove'."
        )
    lines = _first_lines(stream)
    if found is not None and header is None:
        header = _value_count(lines[1:]) != 1 or found.dim == 1
    if found is not None and header:
        check_dim(stream.name, found.dim)
        return TextLayout(found.dim, found.rows, found.size)
    dim = _value_count(lines)
    if not dim:
        shown = next((line for line in lines if line.strip()), b"")[:60].decode(errors="replace")
        raise InputError(
            f"{stream.name} holds no vectors: its first line is {shown!r}, expected 'token value value …', "
            "a line 'rows dim', or a word2vec binary, .npy, .npz or .safetensors file."
        )
    check_dim(stream.name, dim)
    return TextLayout(dim, None, mark_size(stream))


def mark_size(stream: InputStream) -> int:
    """Return the bytes of the byte-order mark that the stream begins with; 0 without one."""
    size = len(BYTE_ORDER_MARK)
    return size if stream.peek(size) == BYTE_ORDER_MARK else 0


def _first_lines(stream: InputStream) -> list[bytes]:
    size = _HEAD_BYTES
    while len(head := stream.peek(size)) == size and b"\n" not in head:
        if size > MAX_LINE:
            raise BadLineError(
                f"{stream.name}, line 1: longer than {MAX_LINE:,} bytes, expected a text file of vectors."
            )
        size *= 2
    lines = head.removeprefix(BYTE_ORDER_MARK).split(b"\n", _SAMPLE_LINES)
    if len(lines) > 1 and (len(lines) > _SAMPLE_LINES or len(head) == size):
        lines.pop()  # may be incomplete
    return lines


def _value_count(lines: list[bytes]) -> int:
    """Return the number of values that most lines end with; 0 if no line has values."""
    counts = Counter(count for line in lines if (count := _trailing_numbers(line)) is not None)
    return counts.most_common(1)[0][0] if counts else 0


def _trailing_numbers(line: bytes) -> int | None:
    fields = line.removesuffix(b"\r").replace(b"\t", b" ").split(b" ")
    fields = [field for field in fields if field]
    if not fields:
        return None
    values = fields[:0:-1]  # last to second: the first field belongs to the token
    return next((i for i, field in enumerate(values) if not NUMBER.fullmatch(field)), len(values))


def _is_binary(stream: InputStream, header: Header) -> bool:
    """Return whether the first record after the header is binary, not text."""
    if not 1 <= header.dim <= MAX_DIM:
        return False
    record = stream.peek(header.size + MAX_TOKEN + 4 * header.dim)[header.size :]
    numbers = _trailing_numbers(record.split(b"\n", 1)[0])
    if numbers is not None and numbers >= header.dim:
        return False
    values = record.removeprefix(b"\n").partition(b" ")[2][: 4 * header.dim]
    if any(byte < 32 and byte not in b"\t\n\r" for byte in values):
        return True
    return not numbers and not values.isascii()
