"""Format detection from the first bytes of an input."""

from __future__ import annotations

from smallfry.errors import InputError
from smallfry.readers.formats.fasttext import HEAD_BYTES, is_fasttext
from smallfry.readers.formats.layout import Header, find_header, is_text_row
from smallfry.readers.formats.shards import is_index
from smallfry.readers.formats.tensors import MAX_HEADER
from smallfry.readers.input.compression import find_compression
from smallfry.readers.input.foreign import find_foreign
from smallfry.readers.input.stream import InputStream
from smallfry.readers.records import MAX_TOKEN
from smallfry.table import MAX_DIM


def detect(stream: InputStream) -> str:
    """Return the stream's format; "text" for one whose layout `find_layout` returns."""
    head = stream.peek(HEAD_BYTES)
    if not head:
        raise InputError(f"{stream.name} is empty, expected vectors.")
    if inner := find_compression(head):
        raise InputError(
            f"{stream.name} is {inner.name} data inside {stream.compression} data. Please decompress it once."
        )
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if (head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER) or is_index(stream):
        return "safetensors"
    if is_fasttext(head):
        return "fasttext"
    if foreign := find_foreign(stream):
        raise InputError(f"{stream.name} is {foreign}")
    header = find_header(stream)
    if header is not None and _is_binary(stream, header):
        return "word2vec-binary"
    return "text"


def _is_binary(stream: InputStream, header: Header) -> bool:
    """Return whether the first record after the header is binary, not text."""
    if not 1 <= header.dim <= MAX_DIM:
        return False
    record = stream.peek(header.size + MAX_TOKEN + 4 * header.dim)[header.size :]
    line = record.split(b"\n", 1)[0]
    if is_text_row(line, header.dim):
        return False
    values = record.removeprefix(b"\n").partition(b" ")[2][: 4 * header.dim]
    if any(byte < 32 and byte not in b"\t\n\r" for byte in values):
        return True
    return not is_text_row(line, 1) and not values.isascii()
