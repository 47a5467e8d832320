"""Decompression of byte streams; the method is found by its magic number."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

_CHUNK = 1 << 18
_LZMA_MEMORY = 1 << 30  # of a dictionary, whose size the stream declares
_ZSTANDARD_PIECE = 1 << 10
_ZSTD_MODULES = ("compression.zstd", "backports.zstd", "pyzstd")


class CompressionError(Exception):
    """The compressed data is damaged or truncated."""


class Decompressor(Protocol):
    """Decompresses one stream, with the interface of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether more output needs more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes of output."""
        ...


class Compression(NamedTuple):
    """A method of compression."""

    name: str
    create: Callable[[], Decompressor]
    package: str | None = None
    """Package to install if its module is missing."""


class _Decompressed(io.RawIOBase):
    def __init__(self, file: BinaryIO, compression: Compression) -> None:
        self._file = file
        self._create = compression.create
        self._decompressor = self._create()
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._decompressor.eof or self._next_stream():
            data, self._input = self._input, b""
            needs_input = not data and self._decompressor.needs_input
            if needs_input:
                data = self._file.read(_CHUNK)
            try:
                output = self._decompressor.decompress(data, len(buffer))
            except Exception as error:  # each method has its own class
                raise CompressionError(str(error)) from None
            if output:
                buffer[: len(output)] = output
                return len(output)
            if needs_input and not data and not self._decompressor.eof:
                raise CompressionError("it ends early")
        return 0

    def _next_stream(self) -> bool:
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not rest and (data := self._file.read(_CHUNK)):
            rest = data.lstrip(b"\0")
        if not rest:
            return False
        self._decompressor, self._input = self._create(), rest
        return True


class _Zlib:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # with the header of gzip

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _Zstandard:
    """The package `zstandard`, given small pieces: it returns all output of a piece at once."""

    def __init__(self) -> None:
        self._zstd: Any = import_module("zstandard").ZstdDecompressor().decompressobj()
        self._input = memoryview(b"")
        self._output = b""

    @property
    def eof(self) -> bool:
        return bool(self._zstd.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._output

    @property
    def unused_data(self) -> bytes:
        return bytes(self._zstd.unused_data) + self._input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._input = memoryview(bytes(self._input) + data)
        parts, size = [self._output], len(self._output)
        while size < max_length and self._input and not self._zstd.eof:
            piece, self._input = self._input[:_ZSTANDARD_PIECE], self._input[_ZSTANDARD_PIECE:]
            parts.append(self._zstd.decompress(piece))
            size += len(parts[-1])
        output = b"".join(parts)
        self._output = output[max_length:]
        return output[:max_length]


@cache
def _zstd_class() -> Callable[[], Decompressor]:
    for name in _ZSTD_MODULES:
        try:
            found: Callable[[], Decompressor] = import_module(name).ZstdDecompressor
        except ImportError:
            continue
        return found
    import_module("zstandard")
    return _Zstandard


def _zstd() -> Decompressor:
    return _zstd_class()()


# Python may be built without these modules.
def _bzip2() -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _lzma() -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)


_METHODS = (
    (rb"\x1f\x8b", Compression("gzip", _Zlib)),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", Compression("bzip2", _bzip2)),
    (rb"\xfd7zXZ\0", Compression("xz", _lzma)),
    # Properties, the size of the dictionary, and the size of the data or -1.
    (rb"\x5d\0\0(?!\0\0)..(?:\xff{8}|.{5}\0{3})", Compression("lzma", _lzma)),
    (rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)", Compression("zstd", _zstd, "zstandard")),
)
MAGIC_BYTES = 13
"""Bytes from which `find_compression` finds the method."""


def decompress(file: BinaryIO, compression: Compression) -> io.RawIOBase:
    """Return the decompressed bytes of a file, which is one stream or several, padded with zeros.

    Reading raises `CompressionError`.

    Raises
    ------
    ImportError
        The method needs a package that is not installed.
    """
    return cast(io.RawIOBase, _Decompressed(file, compression))


def find_compression(head: bytes) -> Compression | None:
    """Return the method by which a file that begins with `head` is compressed."""
    for magic, compression in _METHODS:
        if re.match(magic, head, re.DOTALL):
            return compression
    return None
