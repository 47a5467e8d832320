"""Compress a file of vectors to a ``.sfq`` file, in constant memory."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from smallfry import store
from smallfry.errors import InputError
from smallfry.progress import Progress
from smallfry.quantization.legacy import compress_uniform
from smallfry.quantization.options import Options, largest_nbit_within, smallest_within_error
from smallfry.quantization.quantize import quantize, quantize_matrix
from smallfry.readers import ReadReport, VectorSource, open_vectors
from smallfry.readers.spool import ScratchMatrix, spool
from smallfry.sfq.file import write
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

__all__ = ["CompressReport", "compress_file", "compress_uniform", "quantize"]


@dataclass(frozen=True)
class CompressReport:
    """Result of `compress_file`.

    Attributes
    ----------
    output : str
        Path of the written file.
    rows, dim, nbit : int
    format : str
        Format of the input.
    kind : str
        Kind of the codebook.
    clip : float
    frobenius_error : float
        ``||X - Xq|| / ||X||``.
    nbytes : dict of str to int
        See `Store.nbytes`.
    baseline_nbytes : dict of str to int
        See `Store.baseline_nbytes`.
    file_nbytes : int
        Bytes of the file, header included.
    read : ReadReport
        Counts of the reader.
    seconds : float
    """

    output: str
    rows: int
    dim: int
    nbit: int
    format: str
    kind: str
    clip: float
    frobenius_error: float
    nbytes: dict[str, int]
    baseline_nbytes: dict[str, int]
    file_nbytes: int
    read: ReadReport
    seconds: float

    @property
    def matrix_ratio(self) -> float:
        """Size of the float32 matrix divided by that of the table, without the vocabulary."""
        tokens = sum(self.nbytes[name] for name in ("tokens", "token_offsets", "token_index"))
        return self.baseline_nbytes["float32"] / (self.nbytes["total"] - tokens)

    @property
    def ratio(self) -> float:
        """Size of a float32 matrix and a dict divided by that of the file."""
        return self.baseline_nbytes["total"] / self.file_nbytes


def compress_file(
    input: str | os.PathLike[str] | BinaryIO,
    output: str | os.PathLike[str],
    nbit: int = 2,
    *,
    max_error: float | None = None,
    max_nbytes: int | None = None,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    codebook: str = "uniform",
    center: bool = False,
    rotate: str | None = None,
    row_scale: bool = False,
    format: str | None = None,
    words: str | os.PathLike[str] | None = None,
    tensor: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress | None = None,
) -> CompressReport:
    """Compress a file of vectors to a ``.sfq`` file.

    The matrix is not held in memory but in an unnamed file in the folder of `output`.

    Parameters
    ----------
    input : path, "-" or binary file object
        Vectors in any format of `smallfry.readers.open_vectors`; "-" is standard input.
    output : path
        The ``.sfq`` file to create or replace. A failure leaves it unchanged.
    nbit : int
        1, 2, 4, 8, 16 or 32.
    max_error : float, optional
        Instead of `nbit`: choose the fewest bits whose relative Frobenius error is at most this.
    max_nbytes : int, optional
        Instead of `nbit`: choose the most bits with at most this many bytes of tensors, vocabulary included.
    rounding, seed, codebook, center, rotate, row_scale
        See `smallfry.quantize`.
    format, words, tensor, limit, strict, skip_bad_lines
        See `smallfry.readers.open_vectors`.
    progress : callable, optional
        See `smallfry.progress.Progress`.

    Returns
    -------
    CompressReport

    Raises
    ------
    InputError
        The input or an option is invalid; nothing is written.
    OSError
        A file cannot be read or written.

    Examples
    --------
    >>> from smallfry.compress import compress_file
    >>> report = compress_file("glove.6B.300d.txt", "glove.sfq", nbit=2)
    >>> report.rows, report.dim
    (400000, 300)
    """
    start = time.perf_counter()
    options = Options(codebook, center, rotate, row_scale, seed, rounding)
    options.check(nbit)
    if max_error is not None and max_nbytes is not None:
        raise InputError("max_error and max_nbytes both choose nbit. Please pass one of them.")
    folder = _output_folder(output)
    for path in (input, words):
        if isinstance(path, str | os.PathLike):
            _check_distinct(path, output)
    with (
        open_vectors(
            input,
            format=format,
            words=words,
            tensor=tensor,
            limit=limit,
            strict=strict,
            skip_bad_lines=skip_bad_lines,
            progress=progress,
        ) as source,
        ScratchMatrix(folder, source.dim) as matrix,
    ):
        tokens = spool(source, matrix)
        vocabulary = None if tokens is None else Vocabulary.build(tokens)
        if max_nbytes is not None:
            taken = 0 if vocabulary is None else sum(vocabulary.nbytes.values())
            nbit = largest_nbit_within(max_nbytes, *matrix.shape, taken, options)

        def compress(nbit: int) -> Table:
            return quantize_matrix(matrix, nbit, options, progress)

        if max_error is None:
            table = compress(nbit)
        else:
            table = smallest_within_error(max_error, options, compress)
        write(output, table, vocabulary, source=_provenance(source))
    return _report(output, source, time.perf_counter() - start)


def _output_folder(output: str | os.PathLike[str]) -> Path:
    """Return the folder of the output; raise OSError if the output cannot be written."""
    target = Path(os.path.realpath(output))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory, expected the file to write", os.fspath(output))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a regular file, expected one to replace", os.fspath(output))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to write to", os.fspath(target.parent))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "No permission to write to this folder", os.fspath(target.parent))
    return target.parent


def _check_distinct(input: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    if os.path.exists(input) and os.path.exists(output) and os.path.samefile(input, output):
        raise InputError(f"{os.fspath(output)} is both input and output. Please write to another file.")


def _provenance(source: VectorSource) -> dict[str, str]:
    # With a limit, the rest of the input is not read and its digest is unknown.
    digest = {} if source.sha256 is None else {"sha256": source.sha256}
    return {"name": source.name} | digest


def _report(output: str | os.PathLike[str], source: VectorSource, seconds: float) -> CompressReport:
    with store.open(output) as written:
        table = written.table
        return CompressReport(
            output=os.fspath(output),
            rows=table.rows,
            dim=table.dim,
            nbit=table.nbit,
            format=source.format,
            kind=table.kind,
            clip=table.clip,
            frobenius_error=table.frobenius_error,
            nbytes=written.nbytes,
            baseline_nbytes=written.baseline_nbytes,
            file_nbytes=os.path.getsize(output),
            read=source.report,
            seconds=seconds,
        )
