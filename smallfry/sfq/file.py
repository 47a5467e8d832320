"""Write a ``.sfq`` file, and map one into memory."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import smallfry
from smallfry.errors import InputError, SfqError, TruncatedError
from smallfry.pages import Map, drop_pages
from smallfry.sfq.atomic import replacing
from smallfry.sfq.header import Header, build_header, header_end, parse_header
from smallfry.sfq.metadata import Metadata
from smallfry.sfq.safetensors import DTYPES, PREFIX
from smallfry.sfq.tensors import TOKEN_TENSORS, check_tensors, check_values, expected_tensors
from smallfry.table import Table
from smallfry.text.model import TextModel, TextTensors
from smallfry.vocabulary import Vocabulary

_CHUNK = 1 << 24
_MAX_MESSAGE = 400
_OPTIONAL = ("mean", "column_scale", "row_scale", "zero_rows", "rotation", "head_offsets")


@dataclass(frozen=True, eq=False)
class SfqFile:
    """A memory-mapped ``.sfq`` file whose structure has been checked.

    All arrays are views of one shared map, read-only by default, and keep it alive.

    Notes
    -----
    As with every memory map, a process that reads past the end of a file that was truncated in place is
    killed (SIGBUS). Replace files by renaming, as smallfry does, not by copying over them: processes that
    mapped the old file keep it.
    """

    path: Path
    header: Header  # positions of the tensors, and the strings of the metadata
    table: Table
    vocabulary: Vocabulary | None
    text: TextModel | None  # tokenizer and pooling of a text model
    data: NDArray[np.uint8]  # all bytes of the file
    stamp: tuple[int, ...]  # `stamp_of` the file when it was opened


def write(
    path: str | os.PathLike[str],
    table: Table,
    vocabulary: Vocabulary | None = None,
    *,
    text: TextModel | None = None,
    source: Mapping[str, str] | None = None,
    created_by: str | None = None,
) -> None:
    """Write a table, and its vocabulary if it has one, to a ``.sfq`` file.

    The file is replaced atomically: after an exception, a full disk or a crash, `path` is unchanged. Equal
    arguments give equal bytes.

    Parameters
    ----------
    path : path
        The file to create or replace. A symbolic link is followed.
    table : Table
    vocabulary : Vocabulary, optional
        One token for each row.
    text : TextModel, optional
        The tokenizer of a text model, and how its tokens are pooled.
    source : mapping of str to str, optional
        Origin of the vectors, usually ``name`` and ``sha256``.
    created_by : str, optional
        The program that writes the file; ``smallfry VERSION`` by default.

    Raises
    ------
    InputError
        The number of tokens is not the number of rows, or the table is paged or has heads.
    SfqError
        The table violates a rule of the format.
    OSError
        The file cannot be written.
    """
    if vocabulary is not None and len(vocabulary) != table.rows:
        raise InputError(
            f"Number of tokens ({len(vocabulary)}) does not match number of rows ({table.rows}). "
            "Please give one token for each row."
        )
    if (vocabulary or text) and (table.paged_rows is not None or table.head_offsets is not None):
        raise InputError("a paged table, or one with heads, has row numbers only. Please omit the words.")
    tensors = arrays(table, vocabulary, text)
    metadata = Metadata(
        rows=table.rows,
        dim=table.dim,
        nbit=table.nbit,
        codebook_kind=table.codebook_kind,
        clip=table.clip,
        frobenius_error=table.frobenius_error,
        token_hash_seed=None if vocabulary is None else vocabulary.seed,
        pooling=None if text is None else text.pooling,
        paged=table.paged_rows is not None,
    )
    strings = metadata.strings()
    strings["created_by"] = _printable(created_by or f"smallfry {smallfry.__version__}")
    if source is not None:
        strings["source"] = json.dumps({name: _printable(text) for name, text in source.items()})
    strings |= {f"sha256.{name}": _sha256(array) for name, array in tensors.items()}
    raw, names = build_header(tensors, strings)
    header = parse_header(raw, len(raw) + sum(array.nbytes for array in tensors.values()))
    check_tensors(header, Metadata.parse(header.metadata))
    check_values(tensors, table.rows)
    with replacing(path) as file:
        file.write(raw)
        for name in names:
            for part in _parts(tensors[name]):
                file.write(part)


def map(path: str | os.PathLike[str], *, copy_on_write: bool = False) -> SfqFile:
    """Map a ``.sfq`` file and check its structure, in the same time for any size.

    Every size, offset, dtype, shape and metadata value is checked before it is used, and so are the values of
    the codebook, the mean, the column scales and the zero rows. Codes, row scales, the rotation and tokens
    are not read;
    `smallfry.sfq.verify.verify` does that.

    Parameters
    ----------
    path : path
    copy_on_write : bool
        Make the arrays writable; written pages become private to this process and never reach the file. By
        default the arrays are read-only.

    Raises
    ------
    SfqError
        The class names the first violated rule.
    OSError
        The file cannot be opened, or is not a regular file.
    """
    with _open_regular(path) as file:
        status = os.fstat(file.fileno())
        size = status.st_size
        with naming(path):
            header = _read_header(file, size)
            metadata = Metadata.parse(header.metadata)
            check_tensors(header, metadata)
            access = mmap.ACCESS_COPY if copy_on_write else mmap.ACCESS_READ
            data = np.frombuffer(_map(file, size, access), np.uint8)
            views = {
                name: _view(data, header, name) for name in expected_tensors(metadata).keys() & header.tensors
            }
            table = _table(views, metadata)
            vocabulary = _vocabulary(views, metadata)
    text = _text(views, metadata)
    return SfqFile(Path(path), header, table, vocabulary, text, data, stamp_of(status))


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return device, inode, size and modification time (ns), which identify a version of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def arrays(table: Table, vocabulary: Vocabulary | None, text: TextModel | None) -> dict[str, NDArray[Any]]:
    """Return the present tensors of a file by name, little-endian and C-contiguous."""
    tensors: dict[str, NDArray[Any] | None] = {
        "codes": table.codes,
        "codebook": table.codebook,
        "mean": table.mean,
        "column_scale": table.column_scale,
        "row_scale": table.row_scale,
        "rotation": table.rotation,
        "zero_rows": table.zero_rows if len(table.zero_rows) else None,
        "head_offsets": table.head_offsets,
    }
    if vocabulary is not None:
        tensors |= {
            "tokens": vocabulary.tokens,
            "token_offsets": vocabulary.offsets,
            "token_index": vocabulary.index,
        }
    if text is not None:
        tensors |= text.present()
    return {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in tensors.items()
        if array is not None
    }


def raw_bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a C-contiguous array without copying them."""
    return array.reshape(-1).view(np.uint8).data


def _sha256(array: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for part in _parts(array):
        digest.update(part)
    return digest.hexdigest()


def _parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """Yield the bytes of an array in parts; a memory-mapped one never takes more memory than a part."""
    data = raw_bytes(array)
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]
        drop_pages(array)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the path before the message of a SfqError, and in an OSError, that is raised in the block.

    A message can quote names and shapes as long as the header of a crafted file, so the middle of a long
    message is omitted.
    """
    try:
        yield
    except SfqError as error:
        message = str(error)
        if len(message) > _MAX_MESSAGE:
            message = f"{message[: _MAX_MESSAGE // 2]} … {message[-_MAX_MESSAGE // 2 :]}"
        named = type(error)(f"{os.fspath(path)}: {message}")
        named.path = os.fspath(path)
        raise named from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    # Without O_NONBLOCK, opening a named pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code, kind = (
            (errno.EISDIR, "Is a directory") if stat.S_ISDIR(mode) else (errno.EINVAL, "Not a regular file")
        )
        raise OSError(code, f"{kind}, expected a .sfq file", os.fspath(path))
    return open(descriptor, "rb", buffering=0)


def _read_header(file: BinaryIO, size: int) -> Header:
    start = file.read(PREFIX + 1)
    end = header_end(start, size)
    raw = start + file.read(end - len(start))
    if len(raw) != end:
        raise TruncatedError(f"the header ends after {len(raw):,} of {end:,} bytes. Please copy it again.")
    return parse_header(raw[:end], size)


def _map(file: BinaryIO, size: int, access: int) -> Map:
    try:
        return Map(file.fileno(), size, access=access)
    except ValueError:
        raise TruncatedError(f"the file had {size:,} bytes, and was truncated while it was opened.") from None


def _view(data: NDArray[np.uint8], header: Header, name: str) -> NDArray[Any]:
    entry = header.tensors[name]
    part = data[header.data_start + entry.begin : header.data_start + entry.end]
    return part.view(DTYPES[entry.dtype]).reshape(entry.shape)


def _table(arrays: Mapping[str, NDArray[Any]], metadata: Metadata) -> Table:
    optional = {name: arrays[name] for name in _OPTIONAL if name in arrays}
    check_values(arrays, metadata.rows)
    return Table(
        codes=arrays["codes"],
        dim=metadata.dim,
        nbit=metadata.nbit,
        codebook_kind=metadata.codebook_kind,
        codebook=arrays.get("codebook"),
        clip=metadata.clip,
        frobenius_error=metadata.frobenius_error,
        paged_rows=metadata.rows if metadata.paged else None,
        **optional,
    )


def _vocabulary(arrays: Mapping[str, NDArray[Any]], metadata: Metadata) -> Vocabulary | None:
    if "tokens" not in arrays or metadata.token_hash_seed is None:
        return None
    tokens, offsets, index = (arrays[name] for name in TOKEN_TENSORS)
    return Vocabulary.from_arrays(tokens, offsets, index, metadata.token_hash_seed)


def _text(arrays: Mapping[str, NDArray[Any]], metadata: Metadata) -> TextModel | None:
    if metadata.pooling is None:
        return None
    present = {name: arrays[name] for name in TextTensors._fields if name in arrays}
    return TextModel(TextTensors(**present), metadata.pooling)


def _printable(text: str) -> str:
    # A file name can have bytes that are not UTF-8, and the header must be UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")
