"""Vectors from a file of any format, in one sequential pass and constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.kernels.numpy.tokens import TokenSet
from smallfry.progress import Progress
from smallfry.readers.formats.arrays import open_npy, open_npz
from smallfry.readers.formats.fasttext import FastTextRecords
from smallfry.readers.formats.layout import find_layout
from smallfry.readers.formats.matrix import MatrixRecords
from smallfry.readers.formats.shards import is_index, read_index
from smallfry.readers.formats.tensors import choose_in_index, open_safetensors
from smallfry.readers.formats.text import TextRecords
from smallfry.readers.formats.word2vec import BinaryRecords
from smallfry.readers.input.archive import Archive, is_zip
from smallfry.readers.input.detect import detect
from smallfry.readers.input.encoding import decode_text
from smallfry.readers.input.stream import InputStream
from smallfry.readers.keep import KeptWords, read_keep
from smallfry.readers.listing import cut
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import RecordChunk, Records, all_finite, pack, unpack
from smallfry.readers.report import ReadReport
from smallfry.readers.stored import StoredRows
from smallfry.readers.words.list import have_words
from smallfry.readers.words.open import find_words, open_words
from smallfry.vocabulary import PackedTokens

FORMATS = ("glove", "word2vec", "text-matrix", "word2vec-binary", "fasttext", "npy", "npz", "safetensors")
"""Format names; "word2vec" is text with a header line, as fastText's ``.vec``; "fasttext" is its ``.bin``."""

_INVALID_SHARE, _INVALID_SHARE_OF_FEW = 0.05, 0.2
_FEW_INVALID = 4
_ENOUGH_TOKENS = 1 << 16
"""The share of invalid tokens is checked at the end, and from this many tokens on."""


class VectorSource:
    """A stream of vectors and, if the input has them, their tokens; see `open_vectors`.

    Attributes
    ----------
    name : str
        File name without its directory; ``<stdin>`` for standard input.
    path : Path or None
        Path of the file that holds the vectors: the shard, for the index of a sharded model.
    format : str
        One of `FORMATS`.
    dim : int
    rows : int or None
        Rows that the header declares, including duplicates; None without a header.
    kept : KeptWords or None
        The words to keep, if not all.
    report : ReadReport
        Counts of irregularities; complete once `chunks` is exhausted.
    region : StoredRows or None
        Where the vectors that `chunks` yields can be read again, if they are a matrix in a file.
    """

    def __init__(
        self,
        stream: InputStream,
        records: Records,
        report: ReadReport,
        options: ReadOptions,
        kept: KeptWords | None,
        stack: ExitStack,
    ) -> None:
        self.name = stream.name
        self.path = stream.path
        self.format = report.format
        self.dim = records.dim
        self.rows = records.rows
        self.kept = kept
        self.report = report
        self.region = None if kept is not None else _region(records, options)
        self._stream = stream
        self._records = records
        self._stack = stack
        self._options = options
        self._tokens = self._invalid = 0  # read so far, and those that are not valid UTF-8
        self._started = False

    def chunks(self, *, tokens: bool = True) -> Iterator[tuple[PackedTokens | None, NDArray[np.float32]]]:
        """Yield tokens and their float32 vectors ``[m, dim]``, once.

        Of lines or records with the same token the first is kept, and invalid UTF-8 is replaced by U+FFFD. A
        matrix keeps all rows, and their tokens as they are, unless there are words to keep.

        Parameters
        ----------
        tokens : bool
            False ignores the tokens and yields None for them: rows with a duplicate token are kept.

        Raises
        ------
        BadLineError
            A line or record is malformed, or their number differs from the header's.
        NonFiniteError
            A value is NaN, infinite or beyond float32.
        InputError
            The input is damaged.
        """
        if self._started:
            raise RuntimeError(f"{self.name} was read already; a source is read once. Please open it again.")
        self._started = True
        with self:
            for chunk in self._limited(tokens):
                if len(chunk.vectors):
                    yield chunk.tokens, chunk.vectors
            if self._options.limit is None:
                self._stream.drain()

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the stored input; None until all of it is read, which a limit prevents."""
        return self._stream.sha256

    def close(self) -> None:
        """Close the open files; a finished pass does so itself."""
        self._stack.close()

    def __enter__(self) -> VectorSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _limited(self, tokens: bool) -> Iterator[RecordChunk]:
        seen = kernels.TokenSet()
        for records in self._records.chunks():
            if not tokens:
                records = records._replace(tokens=None)
            if self.kept is not None:
                records = self.kept.select(records, self.report)
            if self._records.is_matrix and self.kept is None:
                chunk = self._check_words(self._zero_non_finite(self._head(records)))
            else:
                chunk = self._head(self._unique(self._valid_utf8(self._finite(records)), seen))
            self.report.rows += len(chunk.vectors)
            yield chunk
            if self.report.rows == self._options.limit:
                break
        else:
            if self.kept is not None:
                self.kept.finish(self.name, self.report)
        self._check_encoding()

    def _head(self, chunk: RecordChunk) -> RecordChunk:
        limit = self._options.limit
        return chunk if limit is None else chunk.head(limit - self.report.rows)

    def _finite(self, chunk: RecordChunk) -> RecordChunk:
        finite = self._finite_rows(chunk)
        if finite is None:
            return chunk
        skipped = len(finite) - int(finite.sum())
        self.report.non_finite += skipped
        self.report.bad_lines += skipped
        return chunk.select(finite)

    def _zero_non_finite(self, chunk: RecordChunk) -> RecordChunk:
        finite = self._finite_rows(chunk)
        if finite is None:
            return chunk
        self.report.zeroed_rows += len(finite) - int(finite.sum())
        return chunk._replace(vectors=np.where(finite[:, None], chunk.vectors, np.float32(0)))

    def _finite_rows(self, chunk: RecordChunk) -> NDArray[np.bool_] | None:
        """Return whether each row is finite, None if all are; raise NonFiniteError unless skipped."""
        if chunk.finite or all_finite(chunk.vectors):
            return None
        finite = np.isfinite(chunk.vectors)
        rows: NDArray[np.bool_] = np.logical_and.reduce(finite, axis=1)
        if rows.all():
            return None
        if not self._options.skip_bad_lines:
            row = int(np.flatnonzero(~rows)[0])
            column = int(np.flatnonzero(~finite[row])[0])
            raise NonFiniteError(
                f"{self._position(chunk, row)}: value {column + 1} is {chunk.vectors[row, column]} "
                "(NaN, infinity, or beyond float32), expected finite numbers. "
                "Please correct it, or skip bad lines."
            )
        return rows

    def _valid_utf8(self, chunk: RecordChunk) -> RecordChunk:
        invalid = self._invalid_utf8(chunk)
        if chunk.tokens is None or not invalid:
            return chunk
        tokens = unpack(chunk.tokens)
        for row in invalid:
            tokens[row] = tokens[row].decode(errors="replace").encode()
        self.report.invalid_utf8 += len(invalid)
        return chunk._replace(tokens=pack(tokens))

    def _check_words(self, chunk: RecordChunk) -> RecordChunk:
        if chunk.tokens is not None:
            have = have_words(chunk.tokens)
            self.report.rows_without_word += len(have) - int(have.sum())
            named = chunk if have.all() else chunk.select(have)
            self.report.invalid_words += len(self._invalid_utf8(named))
        return chunk

    def _invalid_utf8(self, chunk: RecordChunk) -> list[int]:
        """Return the rows whose token is not valid UTF-8; raise BadLineError for one if strict."""
        tokens = chunk.tokens
        if tokens is None:
            return []
        invalid: list[int] = kernels.invalid_utf8(*tokens).tolist()
        if invalid and self._options.strict:
            begin, end = tokens.offsets[invalid[0] : invalid[0] + 2]
            token = tokens.buf[begin:end].tobytes()
            raise BadLineError(
                f"{self._position(chunk, invalid[0])}: token {token!r} is not valid UTF-8. "
                "Please convert the file to UTF-8, or read it without strict."
            )
        self._tokens += len(tokens.offsets) - 1
        self._invalid += len(invalid)
        if self._tokens >= _ENOUGH_TOKENS:
            self._check_encoding()
        return invalid

    def _check_encoding(self) -> None:
        share = _INVALID_SHARE if self._invalid > _FEW_INVALID else _INVALID_SHARE_OF_FEW
        if self._invalid > share * self._tokens and self._options.encoding is None:
            raise InputError(
                f"{self._invalid:,} of {self._tokens:,} tokens of {self.name} are not valid UTF-8. Please "
                "name their encoding with encoding= (--encoding), for example cp1251, latin-1 or gb18030, or "
                "utf-8 to accept them."
            )

    def _unique(self, chunk: RecordChunk, seen: TokenSet) -> RecordChunk:
        if chunk.tokens is None:
            return chunk
        first = seen.add(*chunk.tokens)
        if first.all():
            return chunk
        self.report.duplicates += len(first) - int(first.sum())
        return chunk.select(first)

    def _position(self, chunk: RecordChunk, row: int) -> str:
        return f"{self.name}, {self._records.unit} {chunk.numbers[row]}"


def _region(records: Records, options: ReadOptions) -> StoredRows | None:
    # Rows with NaN become zeros.
    return records.region if isinstance(records, MatrixRecords) and not options.skip_bad_lines else None


def open_vectors(
    input: str | os.PathLike[str] | BinaryIO,
    *,
    format: str | None = None,
    words: str | os.PathLike[str] | Literal[False] | None = None,
    tensor: str | None = None,
    member: str | None = None,
    encoding: str | None = None,
    keep: str | os.PathLike[str] | Iterable[str] | None = None,
    limit: int | None = None,
    strict: bool = False,
    skip_bad_lines: bool = False,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> VectorSource:
    """Open a file of vectors in any of `FORMATS`, also compressed. The format is detected from the content.

    Parameters
    ----------
    input : path, "-" or binary file object
        "-" is standard input. The input need not be seekable.
    format : str, optional
        One of `FORMATS`, to override detection.
    words : path or False, optional
        Words of a matrix in .npy, .npz, .safetensors or text: a text file, or JSON; see
        `docs/reference/files.md`. By default a .npy file uses the word list next to it: for
        ``model.300d.npy``, ``model.300d.txt``, ``model.300d.vocab``, ``model.txt`` or ``model.vocab``; False
        declines it.
    tensor : str, optional
        Name of the matrix in a .npz or .safetensors file, or the end of its name after a dot. By default the
        only matrix, or the one named as token embeddings.
    member : str, optional
        Name of the file in a .zip archive of several, or the end of its name.
    encoding : str, optional
        Encoding of text, of the tokens of a word2vec binary file and of word lists, a name that Python knows;
        UTF-8 by default.
    keep : path or iterable of str, optional
        Read only the vectors of these words: a word list, or the words themselves. The report counts those
        that are missing.
    limit : int, optional
        Stop after this many vectors.
    strict : bool
        Reject invalid UTF-8 instead of replacing it by U+FFFD.
    skip_bad_lines : bool
        Skip and count malformed lines and those with NaN or infinity instead of rejecting them, and accept
        more or fewer rows than the header declares. Such rows of a matrix become zeros.
    allow_truncated : bool
        Accept fewer rows than the header declares.
    progress : callable, optional
        Called with ``"read"``, the stored bytes read so far, and their total (0 if unknown).

    Raises
    ------
    InputError
        The input holds no vectors in a known format, or an option does not apply to it.
    OSError
        The input cannot be read.

    Examples
    --------
    >>> from smallfry.readers import open_vectors
    >>> source = open_vectors("glove.6B.300d.txt")
    >>> for tokens, vectors in source.chunks():
    ...     print(vectors.shape)
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    options = ReadOptions(
        format, words, tensor, member, encoding, keep, limit, strict, skip_bad_lines, allow_truncated
    )
    with ExitStack() as stack:
        stream = InputStream(input, progress)
        stack.callback(stream.close)
        archive = Archive(stream, stack) if is_zip(stream) else None
        if archive is None and member is not None:
            raise InputError(f"member is {member!r}, but {stream.name} is not a zip archive.")
        if archive is not None and not archive.is_read_as_npz(options):
            stream = archive.open(archive.choose(member), show_progress=True)
            archive = Archive(stream, stack) if is_zip(stream) else None
        found = format or ("npz" if archive is not None else detect(stream))
        report = ReadReport(found, compression=stream.compression)
        records: Records
        if found == "npy":
            records = open_npy(stream)
        elif found == "npz":
            records = open_npz(archive or Archive(stream, stack), options, report)
        elif found == "safetensors":
            index = read_index(stream) if is_index(stream) else None
            if index is not None:
                tensor = choose_in_index(index, tensor)
                stream = index.open_shard(tensor, progress)
                stack.callback(stream.close)
                report.tensor = cut(tensor, 100)
                options = replace(options, tensor=tensor)
            records = open_safetensors(stream, options, report, index)
        elif found == "word2vec-binary":
            records = BinaryRecords(stream, options, report)
        elif found == "fasttext":
            records = FastTextRecords(stream, options, stack)
        else:
            report.encoding = decode_text(stream, options)
            layout = find_layout(stream, options)
            found = report.format = layout.format
            records = TextRecords(stream, layout, options, report)
        if words is None and found == "npy" and stream.path is not None:
            words = find_words(stream.path)
        if words:
            if not isinstance(records, MatrixRecords | TextRecords) or not records.is_matrix:
                raise InputError(f"words is set, but {stream.name} is {found}, which has its own tokens.")
            records.words = open_words(words, records.rows, options, report, stack)
        if tensor is not None and found not in ("npz", "safetensors"):
            raise InputError(f"tensor is {tensor!r}, but {stream.name} is {found}, which has no tensors.")
        report.declared_rows = records.rows
        kept = None if keep is None else read_keep(keep, options)
        return VectorSource(stream, records, report, options, kept, stack.pop_all())
