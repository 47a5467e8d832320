"""The bytes of an input: a file, a pipe or standard input, gzipped or not, read once from front to back."""

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

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BUFFER = 1 << 20


class InputStream:
    """A front-to-back stream of an input's bytes, unpacked where they are gzipped.

    Parameters
    ----------
    input : path, "-" or binary file object
        "-" is standard input. A file object is read from where it stands and is left open.
    progress : callable, optional
        See `smallfry.progress.Progress`; the stage is "read", the unit bytes.

    Attributes
    ----------
    name : str
        The file's name without its folder; ``<stdin>`` for standard input.
    path : Path or None
        Where the file is, if it has a path.
    total_bytes : int or None
        Size of the input as it is stored; None for a pipe.
    gzipped : bool
        Whether the stream is being unpacked.
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
        self._owned = self.path is not None
        self.total_bytes = _size(file)
        self._raw = _CountedFile(file, self.total_bytes, progress)
        stored = io.BufferedReader(self._raw, _BUFFER)
        self.gzipped = stored.peek(2)[:2] == GZIP_MAGIC
        # GzipFile reads, which is all that BufferedReader asks for.
        packed = cast(io.RawIOBase, gzip.GzipFile(fileobj=stored, mode="rb")) if self.gzipped else None
        self._unpacked = stored if packed is None else io.BufferedReader(packed, _BUFFER)
        self._head = b""
        self._position = 0
        self._ended = False

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, without passing over them."""
        if len(self._head) < size:
            self._head += self._read(size - len(self._head))
        return self._head[:size]

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        if not self._head:
            data = self._read(size)
        else:
            data, self._head = self._head[:size], self._head[size:]
            if len(data) < size:
                data += self._read(size - len(data))
        self._position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over `size` bytes and return how many there were."""
        passed = 0
        while passed < size and (data := self.read(min(size - passed, _BUFFER))):
            passed += len(data)
        return passed

    def drain(self) -> None:
        """Pass over the rest, so that `sha256` covers all of it."""
        while self.read(_BUFFER):
            pass

    @property
    def position(self) -> int:
        """Bytes passed so far, unpacked."""
        return self._position

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the input as it is stored; None before its end has been reached."""
        return self._raw.digest.hexdigest() if self._ended else None

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned:
            self._raw.file.close()

    def _read(self, size: int) -> bytes:
        try:
            data = self._unpacked.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self.name}: the gzipped data is damaged or ends too soon, after {self._raw.count:,} bytes "
                f"({error}). Please copy or download it again."
            ) from None
        self._ended = self._ended or (size > 0 and len(data) < size)
        return data


class _CountedFile(io.RawIOBase):
    """A file that counts and digests what is read from it."""

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
