"""Compress vectors or a text model, in constant memory, or a matrix and its words to a ``.sfq`` file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import store
from smallfry.errors import InputError, shorten
from smallfry.estimate import Estimate
from smallfry.offsets import check_heads
from smallfry.pages import drop_pages
from smallfry.progress import Progress
from smallfry.quantization.chunks import Matrix, MatrixChunks
from smallfry.quantization.legacy import compress_uniform
from smallfry.quantization.options import Options, largest_nbit_within, smallest_within_error
from smallfry.quantization.quantize import quantize, quantize_matrix
from smallfry.readers import ReadReport, VectorSource, open_vectors
from smallfry.readers.formats.selection import is_pattern, open_selection
from smallfry.readers.listing import listing
from smallfry.readers.spool import Reordered, ScratchMatrix, spool
from smallfry.readers.static_model import open_static_model
from smallfry.sfq.atomic import check_distinct, output_folder
from smallfry.sfq.file import write
from smallfry.sfq.metadata import MAX_ROWS
from smallfry.table import Table
from smallfry.vocabulary import PackedTokens, Vocabulary

__all__ = ["KeyedVectors", "compress_file", "compress_uniform", "quantize", "save"]


@runtime_checkable
class KeyedVectors(Protocol):
    """Vectors and their words, as in gensim's class of this name."""

    vectors: NDArray[np.floating[Any]]
    """``[rows, dim]``."""
    index_to_key: list[str]
    """The word of each row."""


Words: TypeAlias = Vocabulary | Mapping[str, int] | Iterable[str | bytes]


def compress_file(
    input: str | os.PathLike[str] | BinaryIO,
    output: str | os.PathLike[str],
    nbit: int = 2,
    *,
    max_error: float | None = None,
    max_nbytes: int | None = None,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    codebook_kind: str = "uniform",
    center: bool = False,
    rotate: bool = False,
    row_scale: bool = False,
    trellis_state_bits: int = 8,
    keep_order: Literal["file", "list"] = "file",
    heads: bool = False,
    paged: bool = False,
    estimate: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
    **reading: Any,  # noqa: ANN401 - checked by open_vectors
) -> ReadReport:
    """Compress a file of vectors, or the directory of a static embedding model, to a ``.sfq`` file.

    Neither the matrix nor the table is held in memory, but in unnamed files in the folder of `output`. A
    matrix in an uncompressed file is read from there in each pass.

    With a pattern for `tensor`, such as ``"*ngram*"``, all matrices of a .safetensors file or a sharded model
    whose full names match become consecutive row ranges of one table without a vocabulary, in the natural
    order of their names: ``ngram.2`` before ``ngram.10``. The table is paged, also that of one matrix.

    Parameters
    ----------
    input : path, "-" or binary file object
        Vectors in any format of `smallfry.readers.open_vectors`; "-" is standard input. A directory is read
        by `smallfry.readers.static_model.open_static_model`, which needs the ``tokenizers`` package.
    output : path
        The ``.sfq`` file to create or replace. A failure leaves it unchanged.
    nbit : int
        1, 2, 3 (trellis only), 4, 8, 16 or 32.
    max_error : float, optional
        Instead of `nbit`: choose the fewest bits whose relative Frobenius error is at most this.
    max_nbytes : int, optional
        Instead of `nbit`: choose the most bits with at most this many bytes of tensors, vocabulary and
        tokenizer included.
    rounding, seed, codebook_kind, center, rotate, row_scale, trellis_state_bits
        See `smallfry.quantize`. ``**smallfry.BEST`` has the options with the smallest error.
    keep_order : {"file", "list"}
        Order of the rows if `keep` selects some: that of the input, or that of the words to keep.
    heads : bool
        Store where the rows of each tensor begin, so that ids of ``gather`` are local to a tensor; needs a
        pattern.
    paged : bool
        Store the scale of each row next to its codes, in records that cross no page; see `smallfry.paging`.
        Such a table has no vocabulary.
    estimate : callable, optional
        Called with the size of the table before it is made.
    progress : callable, optional
        See `smallfry.progress.Progress`.
    reading
        Options of `smallfry.readers.open_vectors`: format, words, tensor, keep, and so on. None applies to a
        directory.

    Returns
    -------
    ReadReport
        Format of the input, and counts of its irregularities.

    Raises
    ------
    InputError
        The input or an option is invalid; nothing is written.
    OSError
        A file cannot be read or written, or the table would not fit into the folder.

    Examples
    --------
    >>> from smallfry.compress import compress_file
    >>> report = compress_file("glove.6B.300d.txt", "glove.sfq", nbit=2)
    >>> report.rows, report.duplicates
    (400000, 0)
    """
    options = Options(codebook_kind, center, rotate, row_scale, trellis_state_bits, seed, rounding)
    options.check(nbit)
    if max_error is not None and max_nbytes is not None:
        raise InputError("max_error and max_nbytes both choose nbit. Please pass one of them.")
    if keep_order not in ("file", "list"):
        raise InputError(f"keep_order is {keep_order!r}, expected 'file' or 'list'.")
    if keep_order == "list" and reading.get("keep") is None:
        raise InputError("keep_order is 'list', but there is no list. Please give the words to keep.")
    folder = output_folder(output)
    for path in (input, reading.get("words"), reading.get("keep")):
        if isinstance(path, str | os.PathLike):
            check_distinct(path, output)

    selects = is_pattern(reading.get("tensor"))
    job = _Job(folder, nbit, max_error, max_nbytes, options, paged or selects, estimate, progress)
    if selects:
        return _compress_selection(*_selection_path(input, reading), output, job, heads)
    if heads:
        raise InputError("heads need a pattern that selects tensors, such as '*ngram*' (--tensor).")
    model = None
    if isinstance(input, str | os.PathLike) and os.path.isdir(input):
        model = open_static_model(input, progress=progress, **reading)
    with (
        model.source if model else open_vectors(input, progress=progress, **reading) as source,
        ScratchMatrix(folder, source.dim, source.region) as scratch,
    ):
        for path in (source.path, source.report.words_path, model and model.tokenizer):
            if path is not None:
                check_distinct(path, output)
        if source.region is not None:
            job.check_rows(source.region.shape[0])  # before they are read
        tokens = spool(source, scratch)
        text = None
        if model is not None:
            tokens, text = model.tokens, model.text
        if paged and (tokens is not None or text is not None):
            raise InputError(
                f"{source.name} has words, and a paged table has row numbers only. Please omit paged "
                "(--paged), or the words."
            )
        rows: MatrixChunks = scratch
        if keep_order == "list" and source.kept is not None and tokens is not None:
            tokens, order = source.kept.in_order(tokens)
            rows = Reordered(scratch, order)
        with ThreadPoolExecutor(1) as pool:  # the index is built while the matrix is quantized
            building = None if tokens is None else pool.submit(_build_vocabulary, tokens, source.report)
            taken = 0
            if max_nbytes is not None:
                taken = 0 if building is None else sum(building.result().nbytes.values())
                taken += 0 if text is None else text.nbytes
            table = job.table(rows, taken=taken)
        vocabulary = None if building is None else building.result()
        write(output, table, vocabulary, text=text, source=_provenance(source))
    return source.report


@dataclass(frozen=True)
class _Job:
    """How to compress a matrix to a table whose rows are in unnamed files of a folder."""

    folder: Path
    nbit: int
    max_error: float | None
    max_nbytes: int | None
    options: Options
    paged: bool
    estimate: Callable[[Estimate], None] | None
    progress: Progress | None

    def check_rows(self, rows: int) -> None:
        """Raise InputError if only a paged table can have that many rows, and this one is not."""
        if rows > MAX_ROWS and not self.paged:
            raise InputError(
                f"the matrix has {rows:,} rows, at most {MAX_ROWS:,} unless it is paged. Please add paged "
                "(--paged)."
            )

    def table(self, matrix: MatrixChunks, *, tensors: int = 1, taken: int = 0) -> Table:
        """Return the table of a matrix of several tensors, whose vocabulary has `taken` bytes."""
        (rows, dim), paged = matrix.shape, self.paged
        self.check_rows(rows)

        def compress(nbit: int) -> Table:
            estimate = Estimate(rows, dim, nbit, self.options, paged, tensors)
            estimate.check_space(self.folder)
            if self.estimate is not None:
                self.estimate(estimate)
            return quantize_matrix(matrix, nbit, self.options, self.progress, paged=paged, folder=self.folder)

        if self.max_error is not None:
            return smallest_within_error(self.max_error, dim, self.options, compress)
        if self.max_nbytes is not None:
            return compress(largest_nbit_within(self.max_nbytes, rows, dim, taken, self.options, paged=paged))
        return compress(self.nbit)


def _compress_selection(
    input: Path, pattern: str, output: str | os.PathLike[str], job: _Job, heads: bool
) -> ReadReport:
    """Compress the tensors that a pattern selects to one table."""
    matrix = open_selection(input, pattern)
    for part in matrix.parts:
        check_distinct(part.path, output)
    offsets = matrix.offsets if heads else None
    if offsets is not None:
        check_heads(offsets, matrix.shape[0])
    table = replace(job.table(matrix, tensors=len(matrix.parts)), head_offsets=offsets)
    write(output, table, source={"name": input.name, "tensor": pattern})
    unscaled = any(part.dtype.itemsize == 1 and part.scale is None for part in matrix.parts)
    names = f"{len(matrix.names):,}: {listing(matrix.names, 200)}{', without scales' if unscaled else ''}"
    return ReadReport("safetensors", declared_rows=table.rows, rows=table.rows, tensor=names)


def _selection_path(input: str | os.PathLike[str] | BinaryIO, reading: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the path and the pattern of tensors, to which no option of reading words or lines applies."""
    pattern = reading["tensor"]
    if not isinstance(input, str | os.PathLike) or os.fspath(input) == "-" or os.path.isdir(input):
        raise InputError(
            f"tensor is a pattern, {shorten(pattern)}, which needs the path of a .safetensors file, or of an "
            "index of them."
        )
    for name, value in reading.items():
        if name != "tensor" and value not in (None, False) and (name, value) != ("format", "safetensors"):
            raise InputError(
                f"{name} is set, and does not apply to tensors that a pattern selects. Please omit it."
            )
    return Path(input), pattern


def _build_vocabulary(tokens: PackedTokens, report: ReadReport) -> Vocabulary:
    """Return the vocabulary of tokens, and count the duplicates among them."""
    vocabulary = Vocabulary.build(tokens, unnamed=True)
    unnamed = report.invalid_words + report.rows_without_word
    report.duplicate_words = vocabulary.count_unnamed() - unnamed
    drop_pages(vocabulary.tokens)
    return vocabulary


def save(
    path: str | os.PathLike[str],
    vectors: Table | KeyedVectors | ArrayLike,
    words: Words | None = None,
    nbit: int | None = None,
    **options: Any,  # noqa: ANN401 - checked by quantize
) -> store.Store:
    """Compress a matrix and write it, with the words of its rows if it has any, to a ``.sfq`` file.

    Parameters
    ----------
    path : path
        The ``.sfq`` file to create or replace. A failure leaves it unchanged.
    vectors : array of a float dtype, shape [rows, dim], or KeyedVectors, or Table
        A memory map is read in chunks. `KeyedVectors` of gensim bring their own words. A `Table` is written
        as it is.
    words : iterable of str, optional
        One unique word for each row, in the order of the rows; or a dict from word to row.
    nbit : int, optional
        1, 2, 3 (trellis only), 4, 8, 16 or 32; 2 by default. Not for a `Table`.
    options
        Keyword arguments of `smallfry.quantize`: codebook_kind, center, and so on. Not for a `Table`.

    Returns
    -------
    Store
        The open file.

    Raises
    ------
    NonFiniteError
        The matrix holds NaN or infinity; the message names its row.
    InputError
        The matrix, the words or an option is invalid; the message names the row.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import numpy as np, smallfry
    >>> matrix = np.random.default_rng(0).standard_normal((3, 8), np.float32)
    >>> store = smallfry.save("small.sfq", matrix, ["the", "of", "New York"], nbit=4)
    >>> store["New York"].shape
    (8,)
    """
    output_folder(path)
    if isinstance(vectors, Table):
        if nbit is not None or options:
            raise InputError(
                "nbit and options of quantization apply to a matrix, but the vectors are a Table, which has "
                "its own. Please omit them."
            )
        vocabulary = _vocabulary(words, vectors.rows)
        table = vectors
    else:
        matrix, words = _matrix(vectors, words)
        vocabulary = _vocabulary(words, Matrix(matrix).rows)
        table = quantize(matrix, 2 if nbit is None else nbit, **options)
    write(path, table, vocabulary)
    return store.open(path)


def _matrix(vectors: KeyedVectors | ArrayLike, words: Words | None) -> tuple[NDArray[Any], Words | None]:
    """Return the matrix as an array, and the words of its rows."""
    kind = type(vectors).__name__
    if hasattr(vectors, "wv"):
        raise InputError(f"the vectors are a {kind} model. Please pass its KeyedVectors: model.wv.")
    if isinstance(vectors, KeyedVectors):
        if words is not None:
            raise InputError(f"words is set, but {kind} has its own, index_to_key. Please omit words.")
        return np.asarray(vectors.vectors), vectors.index_to_key
    try:
        matrix = np.asarray(vectors)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"the vectors, a {kind}, cannot be converted to an array: {error}") from error
    if matrix.ndim == 0:
        raise InputError(f"the vectors are a {kind}, expected a matrix of floats [rows, dim].")
    return matrix, words


def _vocabulary(words: Words | None, rows: int) -> Vocabulary | None:
    if words is None:
        return None
    vocabulary = words if isinstance(words, Vocabulary) else Vocabulary.build(_word_list(words))
    if len(vocabulary) != rows:
        raise InputError(
            f"Number of words ({len(vocabulary)}) does not match number of vectors ({rows}). "
            "Please give one word for each row, in the order of the rows."
        )
    return vocabulary


def _word_list(words: Words) -> list[str | bytes]:
    if isinstance(words, str | bytes | set | frozenset) or not isinstance(words, Iterable):
        raise InputError(f"words is a {type(words).__name__}, expected a list of words in the order of rows.")
    if isinstance(words, Mapping):
        if {*words.values()} != {*range(len(words))}:
            raise InputError(
                f"words is a {type(words).__name__} whose values are not the row numbers 0 to "
                f"{len(words) - 1}, each once. Please pass a list of words in the order of the rows."
            )
        words = [word for word, _ in sorted(words.items(), key=lambda item: item[1])]
    listed = list(words)
    for row, word in enumerate(listed):
        if not isinstance(word, str | bytes):
            raise InputError(f"word {shorten(word)} of row {row} is {type(word).__name__}, expected str.")
    return listed


def _provenance(source: VectorSource) -> dict[str, str]:
    # With a limit, the rest of the input is not read and its digest is unknown.
    digest = {} if source.sha256 is None else {"sha256": source.sha256}
    return {"name": source.name} | digest
