"""Decompression of byte streams; the method is found by its magic number."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple

from smallfry.errors import InputError

MAGIC_BYTES = 13
"""Bytes from which `find_compression` finds the method."""

_CHUNK = 1 << 18
_LZMA_MEMORY = 1 << 30  # of a dictionary, whose size the stream declares
_ZSTANDARD_PIECE = 1 << 10
_ZSTD_MODULES = ("compression.zstd", "backports.zstd", "pyzstd")


class Compression(NamedTuple):
    """A method of compression."""

    name: str
    magic: bytes
    """Regular expression of the first bytes."""
    find: Callable[[], Callable[[], Any]]
    """Returns a class with the interface of `bz2.BZ2Decompressor`; raises ImportError if there is none."""


class Decompressed(io.RawIOBase):
    """The decompressed bytes of a file, which is one stream or several, padded with zeros.

    Raises
    ------
    InputError
        The data is damaged or truncated, or the module of the method is not installed.
    """

    def __init__(self, name: str, file: BinaryIO, compression: Compression) -> None:
        self._name = name
        self._file = file
        self._method = compression.name
        try:
            self._create = compression.find()
        except ImportError:
            install = "pip install zstandard, or " if compression.name == "zstd" else ""
            raise InputError(
                f"{name} is {compression.name} data, for which this Python has no module. "
                f"Please {install}decompress it first."
            ) from None
        self._decompressor = self._create()
        self._input = b""
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read decompressed bytes into `buffer`; return their number, 0 at the end."""
        while not self._decompressor.eof or self._next_stream():
            data, self._input = self._input, b""
            at_end = not data and self._decompressor.needs_input and not (data := self._read())
            try:
                output = self._decompressor.decompress(data, len(buffer))
            except Exception as error:  # each method has its own class
                raise self._damaged(str(error)) from None
            if output:
                buffer[: len(output)] = output
                return len(output)
            if at_end and not self._decompressor.eof:
                raise self._damaged("it ends early")
        return 0

    def _read(self) -> bytes:
        data = self._file.read(_CHUNK)
        self._position += len(data)
        return data

    def _next_stream(self) -> bool:
        """Begin the stream that follows the one that ended; return False if none does."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not rest and (data := self._read()):
            rest = data.lstrip(b"\0")
        if rest:
            self._decompressor, self._input = self._create(), rest
        return bool(rest)

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"{self._name}: the {self._method} data is damaged or truncated after {self._position:,} bytes "
            f"({reason}). Please copy or download it again."
        )


class _Gzip:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

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
        self._input = self._output = memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._zstd.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._output

    @property
    def unused_data(self) -> bytes:
        return bytes(self._zstd.unused_data) + self._input

    def decompress(self, data: bytes, max_length: int) -> memoryview:
        if data:
            self._input = memoryview(bytes(self._input) + data)
        while self._input and not self._output and not self._zstd.eof:
            piece, self._input = self._input[:_ZSTANDARD_PIECE], self._input[_ZSTANDARD_PIECE:]
            self._output = memoryview(self._zstd.decompress(piece))
        output, self._output = self._output[:max_length], self._output[max_length:]
        return output


# Python may be built without these modules.
def _bzip2() -> Callable[[], Any]:
    return import_module("bz2").BZ2Decompressor  # type: ignore[no-any-return]


def _lzma() -> Callable[[], Any]:
    return partial(import_module("lzma").LZMADecompressor, memlimit=_LZMA_MEMORY)


def _zstd() -> Callable[[], Any]:
    for module in _ZSTD_MODULES:
        with suppress(ImportError):
            return import_module(module).ZstdDecompressor  # type: ignore[no-any-return]
    import_module("zstandard")
    return _Zstandard


_METHODS = (
    Compression("gzip", rb"\x1f\x8b", lambda: _Gzip),
    Compression("bzip2", rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", _bzip2),
    Compression("xz", rb"\xfd7zXZ\0", _lzma),
    # Properties, the size of the dictionary, and the size of the data or -1.
    Compression("lzma", rb"\x5d\0\0(?!\0\0)..(?:\xff{8}|.{5}\0{3})", _lzma),
    Compression("zstd", rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", _zstd),
)


def find_compression(head: bytes) -> Compression | None:
    """Return the method by which a file that begins with `head` is compressed."""
    return next((method for method in _METHODS if re.match(method.magic, head, re.DOTALL)), None)
