"""Vectors as text: GloVe, word2vec and fastText ``.vec`` (a line ``rows dim`` first), CSV, or no tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from smallfry import kernels
from smallfry.errors import BadLineError
from smallfry.kernels.numpy.text import ParsedLines, Problem, split_fields
from smallfry.readers.formats.layout import TextLayout
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, MAX_LINE, RecordChunk, all_finite
from smallfry.readers.report import ReadReport
from smallfry.readers.words.list import WordList
from smallfry.vocabulary import PackedTokens

_MAX_THREADS = 8
_MAX_NEWLINES = 64
_DELIMITERS = {ord(","): "commas", ord(";"): "semicolons", ord("\t"): "tabs"}

_Parsed: TypeAlias = tuple[ParsedLines, bool]
"""The lines of a block, and whether their values are finite."""


class TextRecords:
    """Lines of a token and values, or of values only; see `smallfry.kernels.numpy.text.parse_lines`.

    Attributes
    ----------
    words : WordList or None
        The words of lines without tokens; None by default.
    """

    unit = "line"

    def __init__(
        self, stream: InputStream, layout: TextLayout, options: ReadOptions, report: ReadReport
    ) -> None:
        self.dim = layout.dim
        self.rows = layout.rows
        self.is_matrix = not layout.has_tokens
        self.words: WordList | None = None
        self._layout = layout
        self._stream = stream
        self._report = report
        self._options = options
        self._line = 1
        self._found = 0
        self._unfinished: memoryview | None = None  # the last line if it has no newline

    def chunks(self) -> Iterator[RecordChunk]:
        """Read the stream to its end. Blocks are parsed ahead on a thread pool."""
        self._read_header()
        for block, future in self._parsed_ahead():
            parsed, finite = future.result()
            if (
                block is self._unfinished
                and self._options.allow_truncated
                and self._found + 1 < (self.rows or 0)
            ):
                self._report.bad_lines += 1
                break
            self._note(block, parsed)
            numbers = parsed.lines + self._line
            self._line += parsed.line_count
            tokens: PackedTokens | None = PackedTokens(parsed.buf, parsed.offsets)
            if self.is_matrix:
                tokens = None if self.words is None else self.words.take(len(parsed.lines))
            yield RecordChunk(tokens, parsed.vectors, numbers, finite)
        if self.words is not None:
            self.words.finish()
        if (
            self.rows is not None
            and self._found < self.rows
            and not (self._options.skip_bad_lines or self._options.allow_truncated)
        ):
            raise self._error(
                self._line,
                f"the file ends after {self._found:,} of the {self.rows:,} rows that its header declares",
                "Please get the whole file, or accept it with allow_truncated=True (--allow-truncated)",
            )

    def _read_header(self) -> None:
        header = self._stream.read(self._layout.before)
        self._line = 1 + header.count(b"\n")
        self._report.byte_order_mark = header.startswith(BYTE_ORDER_MARK)
        self._report.crlf_lines += header.endswith(b"\r\n")
        self._report.column_names = self._layout.column_names
        self._report.delimiter = _DELIMITERS.get(self._layout.delimiter, "")

    def _parsed_ahead(self) -> Iterator[tuple[memoryview, Future[_Parsed]]]:
        threads = min(kernels.default_threads(), _MAX_THREADS)
        pending: deque[tuple[memoryview, Future[_Parsed]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for block in self._blocks():
                if block[-1] != ord("\n"):
                    yield from pending
                    what = f"longer than {MAX_LINE:,} bytes, expected a text file of vectors"
                    raise BadLineError(f"{self._stream.name}, line {self._line}: {what}.")
                pending.append((block, pool.submit(self._parse, block)))
                if len(pending) > threads:
                    yield pending.popleft()
            yield from pending

    def _parse(self, block: memoryview) -> _Parsed:
        text, layout = np.frombuffer(block, np.uint8), self._layout
        parsed = ParsedLines(
            *kernels.parse_lines(text, self.dim, layout.delimiter, layout.has_tokens, layout.quoted)
        )
        return parsed, all_finite(parsed.vectors)

    def _blocks(self) -> Iterator[memoryview]:
        """Yield blocks of whole lines; a block without a final newline is a line that is too long.

        Empty lines start a block and do not end one: they may be part of the next line's token.
        """
        rest = b""
        while data := self._stream.read(BLOCK_BYTES):
            data = rest + data
            end = data.rfind(b"\n", len(rest)) + 1
            if end == 1 or data.endswith(b"\n\n", 0, end):
                last = len(data[:end].rstrip(b"\n"))
                end = max(last + 1 if last else 0, end - _MAX_NEWLINES)
            rest = data[end:]
            if end or len(rest) > MAX_LINE:
                yield memoryview(data)[: end or None]
        if rest:
            block = memoryview(rest)
            if not rest.endswith(b"\n"):
                self._report.missing_newline = True
                block = self._unfinished = memoryview(rest + b"\n")
            yield block

    def _note(self, block: memoryview, parsed: ParsedLines) -> None:
        """Count the irregularities of a block; raise BadLineError for those that are not skipped."""
        if len(parsed.problems) and (self.is_matrix or not self._options.skip_bad_lines):
            raise self._problem(block, *parsed.problems[0].tolist())
        found = self._found + len(parsed.lines) + len(parsed.problems)
        if self.rows is not None and found > self.rows and not self._options.skip_bad_lines:
            raise self._error(
                self._line + int(parsed.lines[self.rows - self._found]),
                f"another row, though the header declares {self.rows:,}",
                "Please correct the header, or skip bad lines to accept all rows",
            )
        self._found = found
        self._report.bad_lines += len(parsed.problems)
        self._report.empty_lines += parsed.empty
        self._report.crlf_lines += parsed.crlf
        self._report.spaced_tokens += parsed.spaced
        self._report.unquoted_tokens += parsed.unquoted

    def _problem(self, block: memoryview, line: int, problem: int, detail: int) -> BadLineError:
        if problem == Problem.NOT_A_NUMBER:
            text = bytes(block).split(b"\n")[line].removesuffix(b"\r")
            field = split_fields(text, self._layout.delimiter)[detail - self.dim]
            what = f"value {detail + 1} is {field[:40].decode(errors='replace')!r}, expected a number"
        else:
            what = f"{detail} values, expected {self.dim}"
        remedy = "Please correct the line"
        if not self.is_matrix:
            remedy += ", or skip bad lines"
        return self._error(self._line + line, what, remedy)

    def _error(self, line: int, what: str, remedy: str) -> BadLineError:
        return BadLineError(f"{self._stream.name}, line {line}: {what}. {remedy}.")
