"""Text in other encodings, converted to UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from smallfry.errors import InputError

if TYPE_CHECKING:
    from smallfry.readers.input.stream import InputStream
    from smallfry.readers.options import ReadOptions

_BLOCK_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(head: bytes) -> str | None:
    """Return the encoding that a byte-order mark declares; None for UTF-8 and without one."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def check_encoding(encoding: str) -> None:
    """Raise InputError unless Python knows the encoding."""
    try:
        codecs.getincrementaldecoder(encoding)
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"encoding is {encoding!r}, expected a text encoding that Python knows, such as 'cp1251', "
            "'gb18030' or 'latin-1'."
        ) from None


def is_utf8(encoding: str) -> bool:
    """Return whether an encoding is UTF-8 under any of its names."""
    return codecs.lookup(encoding).name == "utf-8"


def decode_text(stream: InputStream, options: ReadOptions) -> str | None:
    """Convert a stream of text to UTF-8 from `options.encoding`, or from that of its byte-order mark.

    Returns the encoding; None if the text is UTF-8.
    """
    encoding = options.encoding or marked_encoding(stream.peek(4))
    if encoding is None or is_utf8(encoding):
        return None
    stream.decode(encoding, replace=options.skip_bad_lines)
    return encoding


class Decoded(io.RawIOBase):
    """Bytes in another encoding, read as UTF-8.

    Parameters
    ----------
    name : str
        Name of the input in messages.
    read : callable
        Returns the next bytes, at most as many as its argument; none at the end.
    encoding : str
    replace : bool
        Replace bytes that are not valid in the encoding by U+FFFD; they raise InputError otherwise.
    """

    def __init__(self, name: str, read: Callable[[int], bytes], encoding: str, *, replace: bool) -> None:
        self._name = name
        self._read = read
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("replace" if replace else "strict")
        self._text = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read UTF-8 into `buffer`; return its size, 0 at the end."""
        while not self._text and not self._ended:
            data = self._read(_BLOCK_BYTES)
            self._ended = not data
            try:
                self._text = memoryview(self._decoder.decode(data, self._ended).encode())
            except UnicodeError as error:
                raise InputError(
                    f"{self._name} is not valid {self._encoding}: {error}. Please pass its encoding, or skip "
                    "bad lines to replace these bytes."
                ) from None
        size = min(len(buffer), len(self._text))
        buffer[:size] = self._text[:size]
        self._text = self._text[size:]
        return size
