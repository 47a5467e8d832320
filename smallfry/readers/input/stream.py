"""Sequential bytes of a file, a pipe or standard input, decompressed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from smallfry import console
from smallfry.progress import Progress
from smallfry.readers.input.compression import MAGIC_BYTES, Decompressed, find_compression
from smallfry.readers.input.encoding import Decoded

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BUFFER = 1 << 20
_READ_AT_ONCE = 1 << 26


class InputStream:
    """A forward-only byte stream, decompressed if the input is compressed.

    Parameters
    ----------
    input : path, "-" or binary file object
        "-" is standard input. A file object is read from its current position and left open.
    progress : callable, optional
        See `smallfry.progress.Progress`; the stage is "read", the unit bytes.
    name : str, optional
        Name of a file object.
    total_bytes : int, optional
        Size of a file object.

    Attributes
    ----------
    name : str
        File name without its directory; ``<stdin>`` for standard input.
    path : Path or None
        Path of the file, if the input is a path.
    total_bytes : int or None
        Stored size of the input; None for a pipe.
    compression : str or None
        Method by which the input is compressed.
    position : int
        Number of bytes read, after decompression.
    """

    def __init__(
        self,
        input: str | os.PathLike[str] | BinaryIO,
        progress: Progress | None = None,
        *,
        name: str | None = None,
        total_bytes: int | None = None,
    ) -> None:
        self.path: Path | None = None
        if isinstance(input, str | os.PathLike) and os.fspath(input) != "-":
            self.path = Path(input)
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "Is a directory, expected a file", os.fspath(self.path))
            file: BinaryIO = open(self.path, "rb", buffering=0)
            self.name = self.path.name
        elif isinstance(input, str | os.PathLike):
            file, self.name = console.binary_input(), "<stdin>"
        else:
            file, self.name = input, name or os.path.basename(str(getattr(input, "name", "<input>")))
            if isinstance(file, io.TextIOBase):
                raise TypeError(
                    f"{self.name} is open as text, expected a binary file: open it with mode 'rb'"
                )
        self.total_bytes = _size(file) if total_bytes is None else total_bytes
        self._raw = _CountedFile(file, self.name, self.total_bytes, progress)
        try:
            stored = io.BufferedReader(self._raw, _BUFFER)
            method = find_compression(stored.peek(MAGIC_BYTES))
            self._unpacked: BinaryIO = stored
            if method is not None:
                self._unpacked = io.BufferedReader(Decompressed(self.name, stored, method), _BUFFER)
        except BaseException:
            self.close()
            raise
        self.compression = None if method is None else method.name
        self.position = 0
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
        if len(data) < size:
            rest = self._read(size - len(data))
            data = data + rest if data else rest
        self.position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Skip `size` bytes; return the number skipped, smaller only at the end."""
        skipped = 0
        while skipped < size and (data := self.read(min(size - skipped, _BUFFER))):
            skipped += len(data)
        return skipped

    def decode(self, encoding: str, *, replace: bool) -> None:
        """Convert the bytes from here on to UTF-8; see `smallfry.readers.input.encoding.Decoded`."""
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
    def stored_path(self) -> Path | None:
        """Path of the file that holds the bytes as they are read; None for a pipe and compressed data."""
        return self.path if self.total_bytes is not None and self.compression is None else None

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the stored input; None until its end is reached."""
        return self._raw.sha256() if self._ended else None

    def seekable(self, stack: ExitStack) -> BinaryIO:
        """Return the whole content as a seekable file: the input itself, or a temporary copy.

        `stack` closes it. Nothing may have been read before; the copy reads this stream to its end.
        """
        if self.stored_path is not None:
            return stack.enter_context(open(self.stored_path, "rb"))
        copy = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        while data := memoryview(self.read(_BUFFER)):
            try:
                while data:
                    data = data[copy.write(data) :]
            except OSError as error:
                reason = f"{error.strerror}; {self.name} needs a temporary copy there (TMPDIR)"
                raise OSError(error.errno, reason, tempfile.gettempdir()) from error
        copy.seek(0)
        return stack.enter_context(io.BufferedReader(copy))

    def take_progress(self) -> Progress | None:
        """Return the progress callback, which this stream no longer calls."""
        progress, self._raw.progress = self._raw.progress, None
        return progress

    def close(self) -> None:
        """Close the file, unless the caller opened it."""
        self._raw.end()
        if self.path is not None:
            self._raw.file.close()

    def _read(self, size: int) -> bytes:
        parts, rest = [], size
        # Not all at once: a damaged file may declare a size that it does not have.
        while rest > 0 and (data := self._unpacked.read(min(rest, _READ_AT_ONCE))):
            parts.append(data)
            rest -= len(data)
        self._ended = self._ended or rest > 0
        return b"".join(parts)


class _CountedFile(io.RawIOBase):
    """A file that counts the bytes read from it, and hashes them on a thread while they are parsed."""

    def __init__(self, file: BinaryIO, name: str, total: int | None, progress: Progress | None) -> None:
        self.file = file
        self._name = name
        self.progress = progress
        self._total = total or 0
        self._count = 0
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._hashing: Future[None] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self.file.read(len(buffer))
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, self._name) from None
        buffer[: len(data)] = data
        self._wait()
        if len(data) < _BUFFER:
            self._digest.update(data)  # faster than to wake the thread
        else:
            self._hashing = self._pool.submit(self._digest.update, data)
        if self.progress is not None and data:
            self._count += len(data)
            self.progress("read", self._count, self._total)
        return len(data)

    def sha256(self) -> str:
        self._wait()
        return self._digest.hexdigest()

    def end(self) -> None:
        """End the thread; there are no more bytes."""
        self._pool.shutdown()

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
