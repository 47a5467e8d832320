"""One matrix of a .safetensors file, or of a shard of a model."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.formats.choice import choose_tensor
from smallfry.readers.formats.matrix import MatrixRecords, read_rows
from smallfry.readers.formats.scale import (
    Scale,
    block_shape,
    check_in_memory,
    find_scale,
    find_zero_point,
    is_auxiliary,
    scale_names,
)
from smallfry.readers.formats.shards import ShardIndex, find_index, read_index
from smallfry.readers.formats.values import to_float32
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut, listing, shape_text
from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.stored import StoredRows
from smallfry.sfq.safetensors import PREFIX, TensorEntry, parse_entry, parse_header, tensor_dtype

MAX_HEADER = 100_000_000
"""Longest header, in bytes; the limit of the safetensors package."""

FLOATS = ("F64", "F32", "F16", "BF16")
_SCALES = (*FLOATS, "F8_E8M0")
_READABLE = (*FLOATS, "F8_E4M3", "F8_E5M2", "I8")
_MODEL2VEC = ("weights", "mapping")  # of each token: a factor, and its row in the matrix


def choose_in_index(index: ShardIndex, named: str | None) -> str:
    """Return the tensor called `named` of a sharded model, or the one that holds the token embeddings."""
    names = [name for name in index.shards if not is_auxiliary(name)]
    return choose_tensor(
        index.path.name, dict.fromkeys(index.shards, ""), named=named, tables=names, readable=names
    )


def open_safetensors(
    stream: InputStream, options: ReadOptions, report: ReadReport, index: ShardIndex | None = None
) -> MatrixRecords:
    """Open the matrix `options.tensor`, or the token embeddings, or the only matrix.

    A matrix of int8 or fp8 is multiplied by its scale, which may be in another shard of `index`.
    """
    file = TensorFile(stream)
    name = _choose(file, options.tensor, index)
    full_name, entry = file.full_name(name), file.entries[name]
    check_matrix(full_name, entry)
    dtype = tensor_dtype(name, entry, file.damaged)
    scale = None
    detail = ""
    if entry.dtype not in FLOATS:
        scale = open_scale(file, name, index)
        detail = f", {cut('without a scale' if scale is None else f'times {scale.name}', 100)}"
    ignored = [extra for extra in _MODEL2VEC if name == "embeddings" and extra in file.entries]
    if ignored:
        detail += f", without its {' and '.join(ignored)}"
    if detail or (len(file.entries) > 1 and name != options.tensor):
        report.tensor = cut(name, 100) + detail
    file.skip_to(entry)
    return MatrixRecords(stream, full_name, entry.shape, dtype, scale=scale)


def open_stored(stream: InputStream, name: str) -> MatrixRecords:
    """Open the matrix `name` with its values as they are stored: those of int8 are not scaled."""
    file = TensorFile(stream)
    entry = file.entries[name]
    check_matrix(file.full_name(name), entry)
    dtype = tensor_dtype(name, entry, file.damaged)
    file.skip_to(entry)
    return MatrixRecords(stream, file.full_name(name), entry.shape, dtype)


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors of a file."""
    with closing(InputStream(path)) as stream:
        return list(TensorFile(stream).entries)


def read_vector(path: Path, name: str) -> NDArray[Any] | None:
    """Return a tensor of one dimension; None if the file has none of this name."""
    with closing(InputStream(path)) as stream:
        file = TensorFile(stream)
        entry, full_name = file.entries.get(name), file.full_name(name)
        if entry is None:
            return None
        dtype = tensor_dtype(name, entry, file.damaged)
        if len(entry.shape) != 1 or dtype.names is not None:
            raise InputError(
                f"{full_name} is {entry.dtype} of shape {shape_text(entry.shape)}, expected numbers [tokens]."
            )
        file.skip_to(entry)
        data = b"".join(read_rows(stream, full_name, entry.shape[0], dtype.itemsize, "values"))
        return np.frombuffer(data, dtype)


class TensorFile:
    """The tensors of a .safetensors file, which is read forwards.

    Attributes
    ----------
    stream : InputStream
    entries : dict
        Place, dtype and shape of each tensor.
    """

    def __init__(self, stream: InputStream) -> None:
        self.stream = stream
        size = int.from_bytes(stream.read(PREFIX), "little")
        if size > MAX_HEADER:
            raise InputError(
                f"{stream.name} is not a .safetensors file: its header would take {size:,} bytes."
            )
        entries, metadata = parse_header(stream.read(size), self.damaged)
        if metadata.get("format") == "sfq":
            raise InputError(
                f"{stream.name} is a .sfq file: it is already compressed. Please open it with smallfry.open "
                "or QuantEmbedding.from_sfq, or use the file it was made from."
            )
        self.entries = {name: parse_entry(name, entry, self.damaged) for name, entry in entries.items()}
        self.data_start = stream.position

    def full_name(self, name: str) -> str:
        """Return the name of a tensor for messages."""
        return f"{cut(self.stream.name, 100)}:{cut(name, 100)}"

    def skip_to(self, entry: TensorEntry) -> None:
        """Move to the first byte of a tensor that lies ahead."""
        self.stream.skip(self.data_start + entry.begin - self.stream.position)

    def stored(self, name: str, scale: Scale | None = None) -> StoredRows:
        """Return a tensor of an uncompressed file with a path, as rows of one value unless it is a matrix."""
        entry, path = self.entries[name], self.stream.stored_path
        assert path is not None
        dtype = tensor_dtype(name, entry, self.damaged)
        columns = entry.shape[1] if len(entry.shape) == 2 else 1
        rows = entry.shape[0] if len(entry.shape) == 2 else math.prod(entry.shape)
        offset = self.data_start + entry.begin
        return StoredRows(self.full_name(name), path, offset, (rows, columns), dtype, scale)

    def read_scale(self, name: str, matrix: tuple[int, ...]) -> Scale:
        """Return the scale of a matrix of this shape; in a stream, the scale lies ahead."""
        full_name = self.full_name(name)
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(f"{full_name} is missing, but listed in the index. Please download both again.")
        if entry.dtype not in _SCALES:
            raise InputError(
                f"{full_name} is {cut(entry.dtype, 20)}, expected a scale of {', '.join(_SCALES)}."
            )
        if self.stream.stored_path is not None:
            block = block_shape(full_name, entry.shape, matrix)
            factors = self.stored(name)
            factors.check_size("values" if factors.shape[1] == 1 else "rows")
            return Scale(name, factors, block)
        check_in_memory(full_name, entry.shape)
        block = block_shape(full_name, entry.shape, matrix)
        dtype = tensor_dtype(name, entry, self.damaged)
        self.skip_to(entry)
        count = math.prod(entry.shape)
        data = b"".join(read_rows(self.stream, full_name, count, dtype.itemsize, "values"))
        return Scale(name, to_float32(np.frombuffer(data, dtype)).reshape(entry.shape), block)

    def damaged(self, reason: str) -> InputError:
        """Return the error of a file that violates the format."""
        return InputError(f"{self.stream.name} is a damaged .safetensors file: {cut(reason, 180)}.")


def _choose(file: TensorFile, named: str | None, index: ShardIndex | None) -> str:
    entries = file.entries
    matrices = [name for name, entry in entries.items() if len(entry.shape) == 2 and not is_auxiliary(name)]
    whole = None if index is not None else find_index(file.stream.path)
    return choose_tensor(
        file.stream.name,
        {name: f"{entry.dtype} {shape_text(entry.shape)}" for name, entry in entries.items()},
        named=named,
        tables=matrices,
        readable=[name for name in matrices if entries[name].dtype in _READABLE],
        hint="" if whole is None else f"It is a shard: please read {whole.name}, which lists all tensors.",
    )


def check_matrix(full_name: str, entry: TensorEntry) -> None:
    """Raise InputError unless the values of a tensor can be read as a matrix."""
    if entry.dtype not in _READABLE:
        raise InputError(
            f"{full_name} is {cut(entry.dtype, 20)}, expected {', '.join(_READABLE)}. Packed integers (GPTQ, "
            "AWQ, bitsandbytes) are not read. Please save it as float32."
        )
    if len(entry.shape) != 2:
        raise InputError(
            f"{full_name} has shape {shape_text(entry.shape)}, expected a floating-point matrix [rows, dim]."
        )


def open_scale(file: TensorFile, name: str, index: ShardIndex | None) -> Scale | None:
    """Return the scale of an int8 or fp8 matrix; None for an fp8 matrix without one."""
    full_name, entry, path = file.full_name(name), file.entries[name], file.stream.path
    if index is None and (whole := find_index(path)) is not None:
        with closing(InputStream(whole)) as stream:
            index = read_index(stream)
    names = {*file.entries, *(index.shards if index is not None else ())}
    zero_point = find_zero_point(name, names)
    if zero_point is not None:
        raise InputError(
            f"{full_name} has a zero point, {cut(zero_point, 100)}: asymmetric quantization is not read. "
            "Please save it as float32."
        )
    scale = find_scale(name, names)
    if scale is None:
        if entry.dtype != "I8":
            return None
        raise InputError(
            f"{full_name} is I8 without a scale: there is no {listing(scale_names(name), 150)}. Please save "
            "it as float32, multiplied by its scale; unscaled if only directions matter, as in model2vec."
        )
    if scale not in file.entries and index is not None:
        stream = index.open_shard(scale)
    elif file.entries[scale].end <= entry.begin or file.stream.stored_path is not None:
        return file.read_scale(scale, entry.shape)
    elif path is not None:
        stream = InputStream(path)
    else:
        raise InputError(
            f"{file.full_name(scale)} is after the tensor that it scales, and cannot be read first. "
            "Please pass the path of the file."
        )
    with closing(stream):
        return TensorFile(stream).read_scale(scale, entry.shape)
