"""Compress a file of vectors to a ``.sfq`` file, in constant memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO, Literal

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

__all__ = ["compress_file", "compress_uniform", "quantize"]


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
    progress: Progress | None = None,
    **reading: Any,  # noqa: ANN401 - checked by open_vectors
) -> ReadReport:
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
    progress : callable, optional
        See `smallfry.progress.Progress`.
    reading
        Options of `smallfry.readers.open_vectors`: format, words, tensor, and so on.

    Returns
    -------
    ReadReport
        Format of the input, and counts of its irregularities.

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
    >>> report.rows, report.duplicates
    (400000, 0)
    """
    options = Options(codebook, center, rotate, row_scale, seed, rounding)
    options.check(nbit)
    if max_error is not None and max_nbytes is not None:
        raise InputError("max_error and max_nbytes both choose nbit. Please pass one of them.")
    folder = _output_folder(output)
    for path in (input, reading.get("words")):
        if isinstance(path, str | os.PathLike):
            _check_distinct(path, output)
    with (
        open_vectors(input, progress=progress, **reading) as source,
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
    return source.report


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
