"""Vectors in word2vec's binary format: a line ``rows dim``, then records of token, space, float32 values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from smallfry.errors import BadLineError, InputError
from smallfry.readers.formats.layout import find_header, mark_size
from smallfry.readers.input.stream import InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, MAX_TOKEN, RecordChunk, check_dim, decode_tokens, pack
from smallfry.readers.report import ReadReport


class BinaryRecords:
    """Records of a word2vec binary file.

    Newlines after vectors, as the original tool writes them, are skipped if the first vector has one.
    """

    unit = "record"
    is_matrix = False

    def __init__(self, stream: InputStream, options: ReadOptions, report: ReadReport) -> None:
        header = find_header(stream)
        if header is None:
            raise InputError(f"{stream.name} does not begin with a line 'rows dim', as word2vec files do.")
        check_dim(stream.name, header.dim)
        self.dim = header.dim
        self.rows = header.rows
        self._header_size = header.size
        self._separated = self._has_newlines(stream)
        self._stream = stream
        self._report = report
        self._options = options

    def chunks(self) -> Iterator[RecordChunk]:
        """Read the stream to its end."""
        self._report.byte_order_mark = mark_size(self._stream) > 0
        self._stream.skip(self._header_size)
        found, rest = 0, b""
        while data := self._stream.read(BLOCK_BYTES):
            tokens, values, rest = self._split(rest + data, found)
            if not tokens:
                continue
            vectors = np.frombuffer(b"".join(values), "<f4").reshape(len(tokens), self.dim)
            numbers = np.arange(found + 1, found + 1 + len(tokens))
            found += len(tokens)
            if found > self.rows and not self._options.skip_bad_lines:
                raise self._error(
                    self.rows + 1,
                    f"another record, though the header declares {self.rows:,}",
                    "Please correct the header, or skip bad lines to accept all records",
                )
            packed = decode_tokens(pack(tokens), self._options.encoding, self._stream.name, numbers[0])
            yield RecordChunk(packed, vectors.astype(np.float32, copy=False), numbers)
        lenient = self._options.skip_bad_lines or self._options.allow_truncated
        if rest.strip(b"\n"):
            if not lenient:
                raise self._error(
                    found + 1,
                    "the file ends inside it",
                    "Please get the whole file, or accept it with allow_truncated=True (--allow-truncated)",
                )
            self._report.bad_lines += 1
        elif found < self.rows and not lenient:
            raise self._error(
                found + 1,
                f"missing, though the header declares {self.rows:,} records",
                "Please get the whole file, or accept it with allow_truncated=True (--allow-truncated)",
            )

    def _has_newlines(self, stream: InputStream) -> bool:
        size = 4 * self.dim
        records = stream.peek(self._header_size + MAX_TOKEN + size + 3)[self._header_size :]
        after = records.partition(b" ")[2][size : size + 2]
        return after.startswith(b"\n") and after != b"\n "  # otherwise the second token is a newline

    def _split(self, data: bytes, found: int) -> tuple[list[bytes], list[bytes], bytes]:
        """Return tokens, the bytes of their vectors, and the rest after the last whole record."""
        tokens: list[bytes] = []
        values: list[bytes] = []
        size = 4 * self.dim
        begin = 0
        while begin < len(data):
            start = begin + (self._separated and data[begin] == 0x0A)
            space = data.find(b" ", start, start + MAX_TOKEN)
            if space < 0 and len(data) - start >= MAX_TOKEN:
                raise self._error(
                    found + len(tokens) + 1,
                    f"no space in {MAX_TOKEN:,} bytes, expected one after the token",
                    "The file is damaged, or its header has the wrong dim",
                )
            if space < 0 or space + 1 + size > len(data):
                break
            tokens.append(data[start:space])
            begin = space + 1 + size
            values.append(data[space + 1 : begin])
        return tokens, values, data[begin:]

    def _error(self, record: int, what: str, remedy: str) -> BadLineError:
        return BadLineError(f"{self._stream.name}, record {record}: {what}. {remedy}.")
