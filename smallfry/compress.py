"""From a file of vectors to a ``.sfq`` file, in flat memory."""

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
    """What `compress_file` did.

    Attributes
    ----------
    output : str
        The file that was written.
    rows, dim, nbit : int
    format : str
        Format that the input was read as.
    kind : str
        Kind of the codebook.
    clip : float
    frobenius_error : float
        ``||X - Xq|| / ||X||``.
    nbytes : dict of str to int
        Bytes by part and their ``total``, as `Store.nbytes`.
    baseline_nbytes : dict of str to int
        Bytes of a ``float32`` matrix and a ``dict``, as `Store.baseline_nbytes`.
    file_nbytes : int
        Bytes of the file, header included.
    read : ReadReport
        What was met in the input.
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
        """How many times smaller the matrix is than in float32, the vocabulary left out."""
        tokens = sum(self.nbytes[name] for name in ("tokens", "token_offsets", "token_index"))
        return self.baseline_nbytes["float32"] / (self.nbytes["total"] - tokens)

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than a float32 matrix and a dict."""
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

    The matrix is never held in memory: it passes through a nameless file in the folder of `output`.

    Parameters
    ----------
    input : path, "-" or binary file object
        Vectors in any format that `smallfry.readers.open_vectors` tells apart; "-" is standard input.
    output : path
        The ``.sfq`` file to make or replace. After any failure it is as it was.
    nbit : int
        1, 2, 4, 8, 16 or 32.
    max_error : float, optional
        Instead of `nbit`: take the fewest bits whose relative Frobenius error is at most this.
    max_nbytes : int, optional
        Instead of `nbit`: take the most bits whose tensors, vocabulary included, have at most so many bytes.
    rounding, seed, codebook, center, rotate, row_scale
        As for `smallfry.compress.quantize`.
    format, words, tensor, limit, strict, skip_bad_lines
        As for `smallfry.readers.open_vectors`.
    progress : callable, optional
        Called with the name of a pass, how much is done, and how much there is in all.

    Returns
    -------
    CompressReport

    Raises
    ------
    InputError
        When the input or an option makes no table; nothing is written.
    OSError
        When a file cannot be read or written.

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
        raise InputError("max_error and max_nbytes are two ways to choose nbit. Please give one of them.")
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
    """Return the folder of the output; raise OSError where nothing can be written there."""
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
    # Under a limit the rest of the input is not read, so it has no digest.
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
