"""Vectors in NumPy's .npy and .npz files. Nothing is unpickled: object arrays are rejected."""

from __future__ import annotations

import io
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.readers.formats.choice import choose_tensor
from smallfry.readers.formats.matrix import MatrixRecords, read_rows
from smallfry.readers.formats.scale import Scale, block_shape, check_in_memory, find_scale, is_auxiliary
from smallfry.readers.formats.values import to_float32
from smallfry.readers.input.archive import Archive
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut, shape_text
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import MAX_TOKEN, pack
from smallfry.readers.report import ReadReport
from smallfry.readers.words.list import WordList
from smallfry.vocabulary import PackedTokens

MAX_HEADER = 1 << 16
"""Longest .npy header, in bytes; NumPy itself accepts 10,000 characters."""

_ADVICE = {
    "O": " Objects are not unpickled: please save np.stack(list(array)).astype(np.float32).",
    "V": " NumPy saves bfloat16 (V2) and fp8 (V1) so: please save array.astype(np.float32).",
    **dict.fromkeys("biu", " The scale of integers is unknown: please multiply by it, and save as float32."),
    "f": " Please reshape it: array.reshape(rows, dim).",
}
"""What to do with an array that is not a matrix of floats, by the kind of its dtype."""


class _Array(NamedTuple):
    """The header of an array."""

    name: str
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        dtype = "structured" if self.dtype.names is not None else cut(str(self.dtype), 40)
        return f"{dtype} {shape_text(self.shape)}"

    def records(self, stream: InputStream, scale: Scale | None = None) -> MatrixRecords:
        """Return the rows that follow in the stream, of a floating-point matrix or of one with a scale."""
        if scale is None and (self.dtype.kind != "f" or len(self.shape) != 2):
            advice = _ADVICE.get(self.dtype.kind, "")
            if self.dtype.names is not None:
                advice = " Please save its numeric fields as one matrix."
            raise InputError(f"{self.name} is {self}, expected a floating-point matrix [rows, dim].{advice}")
        return MatrixRecords(
            stream, self.name, self.shape, self.dtype, fortran_order=self.fortran_order, scale=scale
        )


def open_npy(stream: InputStream) -> MatrixRecords:
    """Open a .npy file."""
    return _read_header(stream, stream.name).records(stream)


def open_npz(archive: Archive, options: ReadOptions, report: ReadReport) -> MatrixRecords:
    """Open the array `options.tensor` of a .npz file, "vectors", the token embeddings, or the only matrix.

    Its words are the array "words", or the only array of strings, unless `options.words` is set. An int8
    matrix is multiplied by its scale.
    """
    names = [name.removesuffix(".npy") for name in archive.files if name.endswith(".npy")]
    if not names:
        raise InputError(f"{archive.name} is a zip archive without .npy arrays. Please unzip it.")
    arrays = {name: _open(archive, name)[1] for name in names}
    name = _choose(archive.name, arrays, options.tensor, report)
    scale = _open_scale(archive, arrays, name)
    if scale is not None:
        report.tensor = f"{cut(name, 100)}, times {cut(scale.name, 100)}"
    stream, array = _open(archive, name, show_progress=True)
    records = array.records(stream, scale)
    if options.words is None:
        records.words = _words(archive, arrays, records.rows)
    return records


def _open(archive: Archive, name: str, *, show_progress: bool = False) -> tuple[InputStream, _Array]:
    """Open an array of an archive at the end of its header."""
    stream = archive.open(f"{name}.npy", show_progress=show_progress)
    return stream, _read_header(stream, f"{archive.name}:{cut(name, 100)}")


def _choose(file: str, arrays: dict[str, _Array], named: str | None, report: ReadReport) -> str:
    if named is None and "vectors" in arrays:
        return "vectors"
    tables = [name for name, array in arrays.items() if len(array.shape) == 2]
    floats = [name for name in tables if arrays[name].dtype.kind == "f" and not is_auxiliary(name)]
    chosen = choose_tensor(
        file,
        {name: str(array) for name, array in arrays.items()},
        named=named,
        tables=floats,
        readable=floats or tables,
    )
    if chosen != named and len(tables) > 1:
        report.tensor = cut(chosen, 100)
    return chosen


def _open_scale(archive: Archive, arrays: dict[str, _Array], matrix: str) -> Scale | None:
    """Return the scale of an int8 matrix; None for another matrix, or without a scale."""
    dtype, shape = arrays[matrix].dtype, arrays[matrix].shape
    name = find_scale(matrix, arrays) if dtype == np.int8 and len(shape) == 2 else None
    if name is None:
        return None
    scale = arrays[name]
    if scale.dtype.kind != "f":
        raise InputError(f"{scale.name} is {scale}, expected a floating-point scale.")
    check_in_memory(scale.name, scale.shape)
    block = block_shape(scale.name, scale.shape, shape)
    stream, _ = _open(archive, name)
    count = math.prod(scale.shape)
    data = b"".join(read_rows(stream, scale.name, count, scale.dtype.itemsize, "values"))
    order: Literal["F", "C"] = "F" if scale.fortran_order else "C"
    factors = np.frombuffer(data, scale.dtype).reshape(scale.shape, order=order)
    return Scale(name, to_float32(factors).reshape(scale.shape), block)


def _words(archive: Archive, arrays: dict[str, _Array], rows: int) -> WordList | None:
    lists = [name for name, array in arrays.items() if array.dtype.kind in "OSU"]
    if "words" not in lists and len(lists) != 1:
        return None
    name = "words" if "words" in lists else lists[0]
    words = arrays[name]
    if words.dtype.kind == "O" or len(words.shape) != 1 or not 0 < words.dtype.itemsize <= 4 * MAX_TOKEN:
        raise InputError(
            f"{words.name} is {words}, expected strings [rows] of at most {MAX_TOKEN:,} characters. "
            "Please save the words as np.array(words, dtype=str)."
        )
    if words.shape[0] != rows:
        raise InputError(
            f"Number of words ({words.shape[0]}) does not match number of vectors ({rows}): {words.name}. "
            "Please save one word for each vector."
        )
    stream, _ = _open(archive, name)
    return WordList(words.name, _strings(stream, words))


def _strings(stream: InputStream, words: _Array) -> Iterator[PackedTokens]:
    """Yield the words of an array in blocks."""
    row = 0
    for data in read_rows(stream, words.name, words.shape[0], words.dtype.itemsize):
        strings = np.frombuffer(data, words.dtype)
        if words.dtype.kind == "S":
            yield pack(strings.tolist())
            continue
        characters = strings.view(np.dtype(np.uint32).newbyteorder(words.dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise InputError(
                f"{words.name} holds {characters.max()}, which is not a character. The file is damaged."
            )
        buf, offsets, surrogate = kernels.pack_tokens(strings.tolist())
        if surrogate >= 0:
            raise InputError(
                f"{words.name}, row {row + surrogate}: an unpaired surrogate, which has no UTF-8 encoding."
            )
        yield PackedTokens(buf, offsets)
        row += len(strings)


def _read_header(stream: InputStream, name: str) -> _Array:
    """Read a header, which is a Python literal."""
    file = io.BytesIO(stream.peek(MAX_HEADER))  # NumPy reads a header of any declared length
    try:
        version = np.lib.format.read_magic(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2 are slower to parse
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(file)
            elif version in ((2, 0), (3, 0)):  # they differ in the encoding of names of fields
                header = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"version {version[0]}.{version[1]}, expected 1.0, 2.0 or 3.0")
    except Exception as error:  # of the parser, such as RecursionError, or of creating the dtype
        reason = cut(str(error) or type(error).__name__, 150)
        raise InputError(f"{name} is a damaged .npy file: {reason}. Please copy it again.") from None
    if not all(0 <= size < 1 << 63 for size in header[0]):
        raise InputError(f"{name} has an impossible shape. The file is damaged.")
    stream.skip(file.tell())
    return _Array(name, *header)
