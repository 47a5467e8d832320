"""Export a store to a file of vectors, in constant memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError, TokenTableError
from smallfry.kernels.numpy.text import ParsedLines
from smallfry.offsets import Offsets
from smallfry.pages import sequential
from smallfry.progress import Progress
from smallfry.readers.formats.layout import TextLayout, find_layout
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import MAX_LINE, MAX_TOKEN
from smallfry.readers.words.open import is_plain
from smallfry.sfq.atomic import check_distinct, output_folder, replacing
from smallfry.sfq.safetensors import build_header
from smallfry.store import Store
from smallfry.store import open as open_store
from smallfry.vocabulary import PackedTokens, Vocabulary

FORMATS = ("glove", "word2vec", "word2vec-binary", "npy", "safetensors")
"""Format names, as in `smallfry.readers.FORMATS`."""

_SUFFIXES = dict(zip((".txt", ".vec", ".bin", ".npy", ".safetensors"), FORMATS, strict=True))
_MATRICES = ("npy", "safetensors")
_BLOCK_VALUES = 1 << 18
_BLOCK_TOKENS = 1 << 16
_BLOCK_BYTES = 1 << 20  # of tokens
_SHOWN = 60  # characters of a token in a message


class ExportReport(NamedTuple):
    """What `export_file` wrote."""

    format: str
    words: Path | None
    """The word list next to a matrix."""
    spaced: int
    """Tokens with spaces in GloVe text, which most other programs do not read."""


def export_file(
    store: Store | str | os.PathLike[str],
    output: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,
    *,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the vectors of a store, as lookups return them, and their tokens to a file.

    Parameters
    ----------
    store : Store or path
    output : path or binary file object
        A path is replaced as a whole or not at all. A matrix needs a path: its tokens go to a word list next
        to it, ``OUT`` with the suffix ``.txt``, which `smallfry.readers.open_vectors` finds for ``.npy``.
    format : str, optional
        One of `FORMATS`; by default that of the output's suffix: ``.txt``, ``.vec``, ``.bin``, ``.npy`` or
        ``.safetensors``. Text has the shortest digits that read as the same float32; a matrix is float32
        ``[rows, dim]``, in ``.safetensors`` the tensor ``vectors``.
    progress : callable, optional
        See `smallfry.progress.Progress`; the stage is "export", the unit rows.

    Raises
    ------
    InputError
        The format is unknown or cannot hold a token, or a different file has the name of the word list.
    OSError
        A file cannot be read or written.

    Examples
    --------
    >>> from smallfry.export import export_file
    >>> export_file("glove.sfq", "glove.npy").words
    PosixPath('glove.txt')
    """
    if not isinstance(store, Store):
        with open_store(store) as opened:
            return export_file(opened, output, format, progress=progress)
    path = Path(output) if isinstance(output, str | os.PathLike) else None
    format = _format_of(path) if format is None else format
    if format not in FORMATS:
        raise InputError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    if path is not None:
        output_folder(path)
        check_distinct(store.path, path)
    words, spaced = None, 0
    if format in _MATRICES:
        words = _word_list(store, path)
    else:
        spaced = _check_tokens(store, format)
    if format in ("glove", "word2vec"):
        _check_layout(store, format)
    with ExitStack() as stack:
        if words is not None and store.vocabulary is not None:
            _write_words(store.vocabulary, words, stack)
        file = cast(BinaryIO, output) if path is None else stack.enter_context(replacing(path))
        for block in _WRITERS[format](store, progress):
            file.write(block)
    return ExportReport(format, words, spaced)


def format_rows(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return rows as text: values with the shortest digits of the same float32, and spaces between them."""
    return _slices(*kernels.format_rows(np.ascontiguousarray(vectors)))


def _format_of(path: Path | None) -> str:
    if path is None:
        raise InputError("a file object needs a format. Please pass one.")
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"the format of {path} is unclear: expected a name that ends in {', '.join(_SUFFIXES)}. "
            "Please name another file, or choose a format."
        )
    return _SUFFIXES[path.suffix]


def _text(store: Store, progress: Progress | None) -> Iterator[bytes]:
    """Yield lines of token and values; of values only, without a vocabulary."""
    for start, vectors in _vectors(store, progress):
        rows = format_rows(vectors)
        if store.vocabulary is not None:
            tokens = _tokens(store.vocabulary, start, start + len(rows))
            rows = [b"%b %b" % pair for pair in zip(tokens, rows, strict=True)]
        yield b"\n".join([*rows, b""])


def _word2vec_text(store: Store, progress: Progress | None) -> Iterator[bytes]:
    yield _word2vec_header(store)
    yield from _text(store, progress)


def _word2vec_binary(store: Store, progress: Progress | None) -> Iterator[bytes]:
    yield _word2vec_header(store)
    assert store.vocabulary is not None
    for start, vectors in _vectors(store, progress):
        tokens = _tokens(store.vocabulary, start, start + len(vectors))
        yield b"".join(
            b"%b %b" % (token, vector.tobytes()) for token, vector in zip(tokens, vectors, strict=True)
        )


def _npy(store: Store, progress: Progress | None) -> Iterator[bytes]:
    header = io.BytesIO()
    shape = (len(store), store.dim)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    yield from (vectors.tobytes() for _, vectors in _vectors(store, progress))


def _safetensors(store: Store, progress: Progress | None) -> Iterator[bytes]:
    shape = np.broadcast_to(np.zeros((), "<f4"), (len(store), store.dim))
    yield build_header([("vectors", shape)], {})
    yield from (vectors.tobytes() for _, vectors in _vectors(store, progress))


_WRITERS: dict[str, Callable[[Store, Progress | None], Iterator[bytes]]] = {
    "glove": _text,
    "word2vec": _word2vec_text,
    "word2vec-binary": _word2vec_binary,
    "npy": _npy,
    "safetensors": _safetensors,
}


def _vectors(store: Store, progress: Progress | None) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield blocks of decoded rows, each with the number of its first."""
    with sequential(store.table.codes):
        for start, stop in _blocks(store.vocabulary, len(store), max(1, _BLOCK_VALUES // store.dim)):
            yield start, store.rows(np.arange(start, stop)).astype("<f4", copy=False)
            if progress is not None:
                progress("export", stop, len(store))


def _word2vec_header(store: Store) -> bytes:
    return b"%d %d\n" % (len(store), store.dim)


def _blocks(vocabulary: Vocabulary | None, rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row, exclusive, of blocks of at most `most` rows.

    The tokens of a block take about `_BLOCK_BYTES`, unless the first one is longer.
    """
    start = 0
    while start < rows:
        stop = min(start + most, rows)
        if vocabulary is not None:
            ends = np.cumsum(vocabulary.lengths(np.arange(start, stop)))
            stop = start + max(1, int(np.searchsorted(ends, _BLOCK_BYTES)))
        yield start, stop
        start = stop


def _packed_tokens(vocabulary: Vocabulary, start: int, stop: int) -> PackedTokens:
    offsets = vocabulary.offsets[start : stop + 1].astype(np.int64)
    if (np.diff(offsets) < 0).any() or offsets[-1] > len(vocabulary.tokens):
        raise TokenTableError(f"the tokens from row {start} on are damaged. Please copy the file again.")
    return PackedTokens(vocabulary.tokens[offsets[0] : offsets[-1]], offsets - offsets[0])


def _tokens(vocabulary: Vocabulary, start: int, stop: int) -> list[bytes]:
    return _slices(*_packed_tokens(vocabulary, start, stop))


def _slices(buf: NDArray[np.uint8], offsets: Offsets) -> list[bytes]:
    data = buf.tobytes()
    return [data[begin:end] for begin, end in pairwise(offsets.tolist())]


def _blank_tokens(vocabulary: Vocabulary) -> Iterator[tuple[int, bytes]]:
    """Yield row and token of those that are empty, long, or have spaces or control characters."""
    for start, stop in _blocks(vocabulary, len(vocabulary), _BLOCK_TOKENS):
        buf, offsets = _packed_tokens(vocabulary, start, stop)
        sizes = np.diff(offsets)
        scanned = buf[:_BLOCK_BYTES]
        blank = np.searchsorted(offsets, np.flatnonzero(scanned <= ord(" ")), side="right") - 1
        for row in np.union1d(blank, np.flatnonzero((sizes == 0) | (sizes >= MAX_TOKEN))).tolist():
            yield start + row, buf[offsets[row] : offsets[row + 1]].tobytes()


def _check_tokens(store: Store, format: str) -> int:
    """Return the number of tokens with spaces; raise InputError for what text or records cannot hold."""
    if store.vocabulary is None:
        if format == "glove":
            return 0
        raise InputError(
            f"{store.path} has no vocabulary, which {format} needs. "
            "Please export to .npy, .safetensors or .txt."
        )
    unnamed = store.vocabulary.count_unnamed()
    if unnamed:
        raise InputError(
            f"{store.path} has {unnamed:,} rows whose word an earlier row has or is not valid UTF-8, which "
            f"{format} cannot tell apart. Please export to .npy or .safetensors."
        )
    spaced = 0
    for row, token in _blank_tokens(store.vocabulary):
        spaced += b" " in token
        held = b"\n" not in token and (b" " not in token or format == "glove")
        if format == "word2vec-binary":
            held = held and len(token) < MAX_TOKEN
        else:
            held = held and len(token) < MAX_LINE and _is_read_back(token, store.dim)
        if not held:
            raise InputError(
                f"{store.path}, row {row}: {format} cannot hold the token {_shown(token)}. Please export to "
                ".npy or .safetensors, or replace spaces by _ before compressing, as gensim's phrases do."
            )
    return spaced


def _is_read_back(token: bytes, dim: int) -> bool:
    line = np.frombuffer(token + b" 0" * dim + b"\n", np.uint8)
    parsed = ParsedLines(*kernels.parse_lines(line, dim))
    return _slices(parsed.buf, parsed.offsets) == [token]


def _check_layout(store: Store, format: str) -> None:
    """Raise InputError if the reader would take the first lines for another layout."""
    header = b"" if format == "glove" else _word2vec_header(store)
    head = InputStream(io.BytesIO(header + next(_text(store, None), b"")))
    named = store.vocabulary is not None
    try:
        layout = find_layout(head, ReadOptions())
        rows = None if format == "glove" else len(store)
        found = layout == TextLayout(store.dim, rows, len(header), has_tokens=named)
    except InputError:
        found = False
    if not found:
        raise InputError(
            f"{store.path} cannot be exported to {format}: its first lines would be misread, because tokens "
            "look like numbers, names of columns or quotes. Please export to .npy or .safetensors."
        )


def _word_list(store: Store, matrix: Path | None) -> Path | None:
    """Return the path of the word list of a matrix; None without a vocabulary."""
    if store.vocabulary is None:
        return None
    if matrix is None:
        raise InputError("a matrix needs a path, because its words go to a list next to it. Please pass one.")
    for row, token in _blank_tokens(store.vocabulary):
        if b"\n" in token or token.endswith(b"\r"):
            raise InputError(
                f"{store.path}, row {row}: a word list cannot hold the token {_shown(token)}. "
                "Please replace its line break before compressing."
            )
    words = matrix.with_suffix(".txt")
    if words == matrix:
        raise InputError(f"{matrix} is the name of its list of words. Please use .npy or .safetensors.")
    return words


def _write_words(vocabulary: Vocabulary, path: Path, stack: ExitStack) -> None:
    """Write a word list; leave one with the same words as it is, and reject another file.

    The words are in quotes if the list would be misread without them.
    """
    blocks_of_rows = _blocks(vocabulary, len(vocabulary), _BLOCK_TOKENS)
    tokens = (_tokens(vocabulary, start, stop) for start, stop in blocks_of_rows)
    if not is_plain(PackedTokens(vocabulary.tokens, vocabulary.offsets.astype(np.int64))):
        tokens = ([b'"%b"' % token.replace(b'"', b'""') for token in block] for block in tokens)
    blocks = (b"\n".join([*block, b""]) for block in tokens)
    if path.exists():
        with path.open("rb") as existing:
            if all(existing.read(len(block)) == block for block in blocks) and not existing.read(1):
                return
        raise InputError(
            f"{path} exists, and the list of words would replace it. "
            "Please move it, or export to another name."
        )
    file = stack.enter_context(replacing(path))
    for block in blocks:
        file.write(block)


def _shown(token: bytes) -> str:
    return f"'{cut(token.decode(errors='replace'), _SHOWN)}'"
