"""Vectors in NumPy's .npy and .npz files. Nothing is unpickled: object arrays are rejected."""

from __future__ import annotations

import math
import sys
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.readers.formats.choice import choose_tensor
from smallfry.readers.formats.matrix import ByteReader, MatrixRecords
from smallfry.readers.formats.scale import Scale, block_shape, factors_of, find_scale, is_auxiliary
from smallfry.readers.formats.values import to_float32
from smallfry.readers.input.archive import Archive
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut, shape_text
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import BLOCK_BYTES, MAX_TOKEN, pack
from smallfry.readers.report import ReadReport
from smallfry.readers.words import WordList, find_words, open_words
from smallfry.vocabulary import PackedTokens

MAX_HEADER = 1 << 16
"""Longest .npy header, in bytes; NumPy itself accepts 10,000 characters."""

# Raised by parsing a header, which is a Python literal (RecursionError and MemoryError by deep nesting),
# and by creating its dtype.
_HEADER_ERRORS = (
    *(ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, LookupError),
    *(RecursionError, MemoryError),
)


class _ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def open_npy(
    stream: InputStream, options: ReadOptions, report: ReadReport, stack: ExitStack
) -> MatrixRecords:
    """Open a .npy file; the words come from `options.words`, or from the word list next to the file.

    `stack` closes the files opened here.
    """
    header = _read_header(stream, stream.name)
    _check_matrix(stream.name, header)
    records = MatrixRecords(
        stream, stream.name, header.shape, header.dtype, fortran_order=header.fortran_order
    )
    words = options.words
    if words is None and stream.path is not None:
        words = find_words(stream.path)
    if words:
        records.words = open_words(words, records.rows, options, report, stack)
    return records


def open_npz(archive: Archive, options: ReadOptions, report: ReadReport, stack: ExitStack) -> MatrixRecords:
    """Open the array `options.tensor` of a .npz file, "vectors", the token embeddings, or the only matrix.

    The words come from the file `options.words`, or the array "words", or the only array of strings. An int8
    matrix is multiplied by its scale. `stack` closes the word list.
    """
    headers = _headers(archive)
    name = _choose(archive.name, headers, options.tensor, report)
    full_name = f"{archive.name}:{cut(name, 100)}"
    scale = _open_scale(archive, headers, name)
    member = archive.open(f"{name}.npy", show_progress=True)
    header = _read_header(member, full_name)
    if scale is None:
        _check_matrix(full_name, header)
    else:
        report.tensor = f"{cut(name, 100)}, times {cut(scale.name, 100)}"
    records = MatrixRecords(member, full_name, header.shape, header.dtype, fortran_order=header.fortran_order)
    records.scale = scale
    if options.words:
        records.words = open_words(options.words, records.rows, options, report, stack)
    elif options.words is None:
        records.words = _words(archive, headers, records.rows)
    return records


def _open_scale(archive: Archive, headers: dict[str, _ArrayHeader], array: str) -> Scale | None:
    """Return the scale of an int8 matrix; None for another matrix, or without a scale."""
    dtype, shape = headers[array].dtype, headers[array].shape
    scale = find_scale(array, headers) if dtype == np.int8 and len(shape) == 2 else None
    if scale is None:
        return None
    full_name, header = f"{archive.name}:{cut(scale, 100)}", headers[scale]
    if header.dtype.kind != "f":
        raise InputError(f"{full_name} is {_description(header)}, expected a floating-point scale.")
    block_shape(full_name, header.shape, shape)
    member = archive.open(f"{scale}.npy")
    _read_header(member, full_name)
    size = math.prod(header.shape) * header.dtype.itemsize
    data = member.read(size)
    if len(data) < size:
        raise InputError(f"{full_name} ends after {len(data):,} of {size:,} bytes. Please copy it again.")
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    factors = to_float32(np.frombuffer(data, header.dtype)).reshape(header.shape, order=order)
    return Scale(scale, factors_of(scale, factors), shape)


def _headers(archive: Archive) -> dict[str, _ArrayHeader]:
    headers = {
        name.removesuffix(".npy"): _read_header(archive.open(name), f"{archive.name}:{cut(name, 100)}")
        for name in archive.files
        if name.endswith(".npy")
    }
    if not headers:
        raise InputError(f"{archive.name} is a zip archive without .npy arrays. Please unzip it.")
    return headers


def _choose(name: str, headers: dict[str, _ArrayHeader], named: str | None, report: ReadReport) -> str:
    if named is None and "vectors" in headers:
        return "vectors"
    tables = [array for array, header in headers.items() if len(header.shape) == 2]
    floats = [array for array in tables if headers[array].dtype.kind == "f" and not is_auxiliary(array)]
    chosen = choose_tensor(
        name,
        {array: _description(header) for array, header in headers.items()},
        named=named,
        tables=floats,
        readable=floats or tables,
    )
    if chosen != named and len(tables) > 1:
        report.tensor = cut(chosen, 100)
    return chosen


def _description(header: _ArrayHeader) -> str:
    dtype = "structured" if header.dtype.names is not None else cut(str(header.dtype), 40)
    return f"{dtype} {shape_text(header.shape)}"


def _check_matrix(name: str, header: _ArrayHeader) -> None:
    dtype = header.dtype
    if dtype.kind == "f" and len(header.shape) == 2:
        return
    if dtype.names is not None:
        advice = " Please save its numeric fields as one matrix."
    elif dtype.kind == "O":
        advice = " Objects are not unpickled: please save np.stack(list(array)).astype(np.float32)."
    elif dtype.kind == "V":
        advice = " NumPy saves bfloat16 (V2) and fp8 (V1) so: please save array.astype(np.float32)."
    elif dtype.kind in "biu":
        advice = " The scale of integers is unknown: please multiply by it, and save as float32."
    elif dtype.kind == "f":
        advice = " Please reshape it: array.reshape(rows, dim)."
    else:
        advice = ""
    raise InputError(
        f"{name} is {_description(header)}, expected a floating-point matrix [rows, dim].{advice}"
    )


def _words(archive: Archive, headers: dict[str, _ArrayHeader], rows: int) -> WordList | None:
    lists = [array for array, header in headers.items() if header.dtype.kind in "OSU"]
    if "words" not in lists and len(lists) != 1:
        return None
    array = "words" if "words" in lists else lists[0]
    dtype, shape = headers[array].dtype, headers[array].shape
    full_name = f"{archive.name}:{cut(array, 100)}"
    if dtype.kind == "O" or len(shape) != 1 or not 0 < dtype.itemsize <= 4 * MAX_TOKEN:
        raise InputError(
            f"{full_name} is {_description(headers[array])}, expected strings [rows] of at most "
            f"{MAX_TOKEN:,} characters. Please save the words as np.array(words, dtype=str)."
        )
    if shape[0] != rows:
        raise InputError(
            f"Number of words ({shape[0]}) does not match number of vectors ({rows}): {full_name}. "
            "Please save one word for each vector."
        )
    member = archive.open(f"{array}.npy")
    _read_header(member, full_name)
    return WordList(full_name, _strings(member, full_name, dtype, rows))


def _strings(source: ByteReader, name: str, dtype: np.dtype[Any], count: int) -> Iterator[PackedTokens]:
    step = max(1, BLOCK_BYTES // dtype.itemsize)
    for begin in range(0, count, step):
        size = min(step, count - begin) * dtype.itemsize
        data = source.read(size)
        if len(data) < size:
            raise InputError(
                f"{name} ends after {begin + len(data) // dtype.itemsize:,} of {count:,} words. "
                "Please copy or download it again."
            )
        yield _pack_strings(np.frombuffer(data, dtype), name, begin)


def _pack_strings(strings: NDArray[Any], name: str, begin: int) -> PackedTokens:
    if strings.dtype.kind == "S":
        return pack(strings.tolist())
    characters = strings.view(np.dtype(np.uint32).newbyteorder(strings.dtype.byteorder))
    if characters.max(initial=0) > sys.maxunicode:
        raise InputError(f"{name} holds {characters.max()}, which is not a character. The file is damaged.")
    buf, offsets, surrogate = kernels.pack_tokens(strings.tolist())
    if surrogate >= 0:
        raise InputError(
            f"{name}, row {begin + surrogate}: an unpaired surrogate, which has no UTF-8 encoding."
        )
    return PackedTokens(buf, offsets)


class _Head:
    """The start of an array's file, with limited reads: NumPy reads a header of any declared length."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        if size > MAX_HEADER:
            raise ValueError(f"the header declares {size:,} bytes, the limit is {MAX_HEADER:,}")
        return self._source.read(size)


def _read_header(source: ByteReader, name: str) -> _ArrayHeader:
    file = cast(IO[bytes], _Head(source))
    try:
        version = np.lib.format.read_magic(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2 are slower to parse
            if version == (1, 0):
                header = _ArrayHeader(*np.lib.format.read_array_header_1_0(file))
            elif version in ((2, 0), (3, 0)):  # they differ in the encoding of names of fields
                header = _ArrayHeader(*np.lib.format.read_array_header_2_0(file))
            else:
                raise ValueError(f"version {version[0]}.{version[1]}, expected 1.0, 2.0 or 3.0")
    except _HEADER_ERRORS as error:
        reason = cut(str(error) or type(error).__name__, 150)
        raise InputError(f"{name} is a damaged .npy file: {reason}. Please copy it again.") from None
    if not all(0 <= size < 1 << 63 for size in header.shape):
        raise InputError(f"{name} has an impossible shape. The file is damaged.")
    return header
