"""Vectors in NumPy's .npy and .npz files. Object arrays are refused: nothing is unpickled."""

from __future__ import annotations

import os
import sys
import tempfile
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.readers.matrix import ByteReader, MatrixRecords
from smallfry.readers.records import BLOCK_BYTES, MAX_TOKEN, join_tokens, pack
from smallfry.readers.report import ReadReport
from smallfry.readers.stream import InputStream
from smallfry.readers.words import find_words, read_words
from smallfry.vocabulary import PackedTokens

MAX_HEADER = 1 << 16
"""Longest .npy header that is read, in bytes; NumPy itself takes 10,000 characters."""

# What parsing a header raises, which is a Python literal, and making a dtype of it.
_HEADER_ERRORS = (
    *(ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, LookupError),
    *(RecursionError, MemoryError),  # of one that nests deep
)


class _ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def open_npy(stream: InputStream, words: str | os.PathLike[str] | None, report: ReadReport) -> MatrixRecords:
    """Open a .npy file, with its words from `words` or from the list that stands beside it."""
    header = _read_header(stream, stream.name)
    if words is None and stream.path is not None:
        words = find_words(stream.path)
    packed = None if words is None else read_words(words, report)
    return MatrixRecords(
        stream, stream.name, header.shape, header.dtype, fortran_order=header.fortran_order, words=packed
    )


def open_npz(
    stream: InputStream,
    words: str | os.PathLike[str] | None,
    tensor: str | None,
    report: ReadReport,
    stack: ExitStack,
) -> MatrixRecords:
    """Open a .npz file: its array `tensor`, or "vectors", or its only matrix of floating values.

    The words come from the list `words`, or the array "words", or the only one of strings.
    What is opened is closed with `stack`.
    """
    file = _seekable(stream, stack)
    with _naming_damage(stream.name):
        archive = stack.enter_context(zipfile.ZipFile(file))
        headers = _headers(archive, stream.name)
        name = _choose(stream.name, headers, tensor)
        packed = None if words is not None else _words(archive, stream.name, headers)
        member = _Member(stack.enter_context(archive.open(f"{name}.npy")), stream.name)
        header = _read_header(member, f"{stream.name}:{name}")
    return MatrixRecords(
        member,
        f"{stream.name}:{name}",
        header.shape,
        header.dtype,
        fortran_order=header.fortran_order,
        words=packed if words is None else read_words(words, report),
    )


class _Member:
    """An array of an archive, whose damage is reported as any other."""

    def __init__(self, file: IO[bytes], archive: str) -> None:
        self._file = file
        self._archive = archive

    def read(self, size: int, /) -> bytes:
        with _naming_damage(self._archive):
            return self._file.read(size)


@contextmanager
def _naming_damage(name: str) -> Iterator[None]:
    """Raise InputError for what zipfile raises on damaged archives.

    That is whatever its decompressors raise, and files that are sought at wild positions.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{name} is a damaged .npz file: {reason}. Please copy it again.") from None


def _seekable(stream: InputStream, stack: ExitStack) -> IO[bytes]:
    """Return the stream's bytes as a file in which the archive's directory, at the end, can be found."""
    if stream.path is not None and stream.total_bytes is not None and not stream.gzipped:
        stream.drain()
        return stack.enter_context(open(stream.path, "rb"))
    spool = stack.enter_context(tempfile.TemporaryFile())
    while data := stream.read(BLOCK_BYTES):
        spool.write(data)
    spool.seek(0)
    return spool


def _headers(archive: zipfile.ZipFile, name: str) -> dict[str, _ArrayHeader]:
    headers = {}
    for member in archive.namelist():
        if member.endswith(".npy"):
            with archive.open(member) as file:
                headers[member.removesuffix(".npy")] = _read_header(file, f"{name}:{member}")
    if not headers:
        members = ", ".join(archive.namelist()[:5]) or "nothing"
        raise InputError(
            f"{name} is a zip file with {members}, expected .npy arrays. "
            "Please unzip text first, for example: unzip -p FILE | smallfry compress - …"
        )
    return headers


def _choose(name: str, headers: dict[str, _ArrayHeader], tensor: str | None) -> str:
    shapes = ", ".join(f"{array} {header.dtype} {list(header.shape)}" for array, header in headers.items())
    if tensor is not None:
        if tensor not in headers:
            raise InputError(f"{name} has no array {tensor!r}. It has {shapes}.")
        return tensor
    if "vectors" in headers:
        return "vectors"
    matrices = [array for array, header in headers.items() if _is_matrix(header)]
    if len(matrices) != 1:
        raise InputError(
            f"{name} has {len(matrices)} matrices of floating values, expected one, or one named 'vectors': "
            f"{shapes}. Please name the one to read with tensor= (--tensor)."
        )
    return matrices[0]


def _is_matrix(header: _ArrayHeader) -> bool:
    return len(header.shape) == 2 and header.dtype.kind == "f"


def _words(archive: zipfile.ZipFile, name: str, headers: dict[str, _ArrayHeader]) -> PackedTokens | None:
    lists = [array for array, header in headers.items() if header.dtype.kind in "OSU"]
    if "words" not in lists and len(lists) != 1:
        return None
    array = "words" if "words" in lists else lists[0]
    dtype, shape = headers[array].dtype, headers[array].shape
    if dtype.kind == "O" or len(shape) != 1 or not 0 < dtype.itemsize <= 4 * MAX_TOKEN:
        raise InputError(
            f"{name}:{array} is {dtype} {list(shape)}, expected strings [rows] of at most {MAX_TOKEN:,} "
            "characters. Please save the words as np.array(words, dtype=str)."
        )
    with archive.open(f"{array}.npy") as file:
        _read_header(file, f"{name}:{array}")
        return _read_strings(file, f"{name}:{array}", dtype, shape[0])


def _read_strings(file: IO[bytes], name: str, dtype: np.dtype[Any], count: int) -> PackedTokens:
    """Read an array of strings a block at a time: all but their padding is what memory it takes."""
    parts = []
    step = max(1, BLOCK_BYTES // dtype.itemsize)
    for begin in range(0, count, step):
        size = min(step, count - begin) * dtype.itemsize
        data = file.read(size)
        if len(data) < size:
            raise InputError(
                f"{name} ends after {begin + len(data) // dtype.itemsize:,} of {count:,} words. "
                "Please copy or download it again."
            )
        parts.append(_pack_strings(np.frombuffer(data, dtype), name, begin))
    return join_tokens(parts)


def _pack_strings(strings: NDArray[Any], name: str, begin: int) -> PackedTokens:
    if strings.dtype.kind == "S":
        return pack(strings.tolist())
    characters = strings.view(np.dtype(np.uint32).newbyteorder(strings.dtype.byteorder))
    if characters.max(initial=0) > sys.maxunicode:
        raise InputError(f"{name} holds {characters.max()}, which is no character. The file is damaged.")
    buf, offsets, surrogate = kernels.pack_tokens(strings.tolist())
    if surrogate >= 0:
        raise InputError(
            f"{name}, row {begin + surrogate}: a surrogate without its pair, which has no UTF-8."
        )
    return PackedTokens(buf, offsets)


class _Head:
    """The begin of an array's file, of which no more is read at a time than a header may take.

    NumPy reads all that a header claims to be before it looks at it.
    """

    def __init__(self, source: ByteReader) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        if size > MAX_HEADER:
            raise ValueError(f"its header would take {size:,} bytes, {MAX_HEADER:,} at most")
        return self._source.read(size)


def _read_header(source: ByteReader, name: str) -> _ArrayHeader:
    file = cast(IO[bytes], _Head(source))
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = _ArrayHeader(*np.lib.format.read_array_header_1_0(file))
        elif version == (2, 0):
            header = _ArrayHeader(*np.lib.format.read_array_header_2_0(file))
        else:
            raise InputError(f"{name} is .npy version {version[0]}.{version[1]}, expected 1.0 or 2.0.")
    except _HEADER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{name} is a damaged .npy file: {reason}. Please copy it again.") from None
    if not all(0 <= size < 1 << 63 for size in header.shape):
        raise InputError(f"{name} has a shape of sizes that no array has. The file is damaged.")
    return header
