"""Sequential bytes of a file, a pipe or standard input, decompressed if gzipped."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from smallfry.errors import InputError
from smallfry.progress import Progress
from smallfry.readers.encoding import Decoded

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BUFFER = 1 << 20


class InputStream:
    """A forward-only byte stream, decompressed if the input is gzipped.

    Parameters
    ----------
    input : path, "-" or binary file object
        "-" is standard input. A file object is read from its current position and left open.
    progress : callable, optional
        See `smallfry.progress.Progress`; the stage is "read", the unit bytes.

    Attributes
    ----------
    name : str
        File name without its directory; ``<stdin>`` for standard input.
    path : Path or None
        Path of the file, if the input is a path.
    total_bytes : int or None
        Stored size of the input; None for a pipe.
    gzipped : bool
        Whether the input is gzipped.
    """

    def __init__(self, input: str | os.PathLike[str] | BinaryIO, progress: Progress | None = None) -> None:
        self.path: Path | None = None
        if isinstance(input, str | os.PathLike) and os.fspath(input) != "-":
            self.path = Path(input)
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "Is a directory, expected a file", os.fspath(self.path))
            file: BinaryIO = open(self.path, "rb", buffering=0)
            self.name = self.path.name
        elif isinstance(input, str | os.PathLike):
            file, self.name = sys.stdin.buffer, "<stdin>"
        else:
            file, self.name = input, os.path.basename(str(getattr(input, "name", "<input>")))
            if isinstance(file, io.TextIOBase):
                raise TypeError(
                    f"{self.name} is open as text, expected a binary file: open it with mode 'rb'"
                )
        self.total_bytes = _size(file)
        self._raw = _CountedFile(file, self.total_bytes, progress)
        stored = io.BufferedReader(self._raw, _BUFFER)
        self.gzipped = stored.peek(2)[:2] == GZIP_MAGIC
        self._unpacked: BinaryIO = stored
        if self.gzipped:
            # GzipFile has the read methods that BufferedReader needs.
            packed = cast(io.RawIOBase, gzip.GzipFile(fileobj=stored, mode="rb"))
            self._unpacked = io.BufferedReader(packed, _BUFFER)
        self._head = b""
        self._ended = False

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, without consuming them."""
        if len(self._head) < size:
            self._head += self._read(size - len(self._head))
        return self._head[:size]

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        data, self._head = self._head[:size], self._head[size:]
        if not data:
            return self._read(size)
        return data + self._read(size - len(data)) if len(data) < size else data

    def skip(self, size: int) -> int:
        """Skip `size` bytes; return the number skipped, smaller only at the end."""
        skipped = 0
        while skipped < size and (data := self.read(min(size - skipped, _BUFFER))):
            skipped += len(data)
        return skipped

    def decode(self, encoding: str, *, replace: bool) -> None:
        """Convert the bytes from here on to UTF-8; see `smallfry.readers.encoding.Decoded`."""
        packed, head = self._unpacked, [self._head]

        def read(size: int) -> bytes:
            return head.pop() if head and head[0] else packed.read(size)

        self._unpacked = io.BufferedReader(Decoded(self.name, read, encoding, replace=replace), _BUFFER)
        self._head = b""

    def drain(self) -> None:
        """Read the rest, so that `sha256` covers the whole input."""
        while self.read(_BUFFER):
            pass

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the stored input; None until its end is reached."""
        return self._raw.digest.hexdigest() if self._ended else None

    def close(self) -> None:
        """Close the file, unless the caller opened it."""
        if self.path is not None:
            self._raw.file.close()

    def _read(self, size: int) -> bytes:
        try:
            data = self._unpacked.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self.name}: the gzipped data is damaged or truncated after {self._raw.count:,} bytes "
                f"({error}). Please copy or download it again."
            ) from None
        self._ended = self._ended or (size > 0 and len(data) < size)
        return data


class _CountedFile(io.RawIOBase):
    """A file that counts and hashes the bytes read from it."""

    def __init__(self, file: BinaryIO, total: int | None, progress: Progress | None) -> None:
        self.file = file
        self.count = 0
        self.digest = hashlib.sha256()
        self._total = total or 0
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        self.digest.update(data)
        if self._progress is not None and data:
            self._progress("read", self.count, self._total)
        return len(data)


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
