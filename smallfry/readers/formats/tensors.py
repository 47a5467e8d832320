"""One matrix of a .safetensors file, or of a shard of a model."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.formats.choice import choose_tensor
from smallfry.readers.formats.matrix import MatrixRecords
from smallfry.readers.formats.scale import (
    Scale,
    block_shape,
    factors_of,
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
from smallfry.readers.records import BLOCK_BYTES
from smallfry.readers.report import ReadReport
from smallfry.readers.words import open_words
from smallfry.sfq.safetensors import PREFIX, TensorEntry, parse_entry, parse_header, tensor_dtype

MAX_HEADER = 100_000_000
"""Longest header, in bytes; the limit of the safetensors package."""

_FLOATS = ("F64", "F32", "F16", "BF16")
_SCALES = (*_FLOATS, "F8_E8M0")
_READABLE = (*_FLOATS, "F8_E4M3", "F8_E5M2", "I8")
_MODEL2VEC = ("weights", "mapping")  # of each token: a factor, and its row in the matrix
_PACKED = ("U8", "I32", "U32", "F4")


def choose_in_index(index: ShardIndex, named: str | None) -> str:
    """Return the tensor called `named` of a sharded model, or the one that holds the token embeddings."""
    names = [name for name in index.shards if not is_auxiliary(name)]
    return choose_tensor(
        index.path.name,
        dict.fromkeys(index.shards, ""),
        named=named,
        tables=names,
        readable=names,
        noun="tensors",
    )


def open_safetensors(
    stream: InputStream,
    options: ReadOptions,
    report: ReadReport,
    stack: ExitStack,
    index: ShardIndex | None = None,
) -> MatrixRecords:
    """Open the matrix `options.tensor`, or the token embeddings, or the only matrix.

    A matrix of int8 or fp8 is multiplied by its scale, which may be in another shard of `index`. `stack`
    closes the files opened here.
    """
    file = _TensorFile(stream)
    name = _choose(file, options.tensor, index)
    full_name, entry = file.full_name(name), file.entries[name]
    _check_matrix(full_name, entry)
    dtype = file.dtype(name)
    scale = None if entry.dtype in _FLOATS else _open_scale(file, name, full_name, index)
    file.skip_to(name)
    records = MatrixRecords(stream, full_name, entry.shape, dtype)
    records.scale = scale
    if len(file.entries) > 1 and name != options.tensor:
        report.tensor = cut(name, 100)
    if entry.dtype not in _FLOATS:
        factor = "without a scale" if scale is None else f"times {scale.name}"
        report.tensor = f"{cut(name, 100)}, {cut(factor, 100)}"
    ignored = [extra for extra in _MODEL2VEC if name == "embeddings" and extra in file.entries]
    if ignored:
        report.tensor = f"{report.tensor or name}, without its {' and '.join(ignored)}"
    if options.words:
        records.words = open_words(options.words, records.rows, options, report, stack)
    return records


class _TensorFile:
    """The tensors of a .safetensors file, which is read forwards."""

    def __init__(self, stream: InputStream) -> None:
        self.stream = stream
        self._position = 0
        size = int.from_bytes(stream.read(PREFIX), "little")
        if size > MAX_HEADER:
            raise InputError(
                f"{stream.name} is not a .safetensors file: its header would take {size:,} bytes."
            )
        entries, metadata = parse_header(stream.read(size), self._damaged)
        if metadata.get("format") == "sfq":
            raise InputError(
                f"{stream.name} is a .sfq file: it is already compressed. Please open it with smallfry.open "
                "or QuantEmbedding.from_sfq, or use the file it was made from."
            )
        self.entries = {name: parse_entry(name, entry, self._damaged) for name, entry in entries.items()}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the NumPy dtype of a tensor."""
        return tensor_dtype(name, self.entries[name], self._damaged)

    def full_name(self, name: str) -> str:
        """Return the name of a tensor for messages."""
        return f"{cut(self.stream.name, 100)}:{cut(name, 100)}"

    def skip_to(self, name: str) -> None:
        """Move to the first byte of a tensor that lies ahead."""
        distance = self.entries[name].begin - self._position
        self._position += self.stream.skip(distance)
        if self._position < self.entries[name].begin:
            raise InputError(
                f"{cut(self.stream.name, 100)} ends before {self.full_name(name)} begins. "
                "Please copy or download it again."
            )

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a whole tensor that lies ahead."""
        entry, dtype = self.entries[name], self.dtype(name)
        self.skip_to(name)
        data = bytearray()
        while size := min(entry.end - self._position, BLOCK_BYTES):
            block = self.stream.read(size)
            if len(block) < size:
                raise InputError(
                    f"{self.full_name(name)} ends too early. Please copy or download the file again."
                )
            self._position += size
            data += block
        return to_float32(np.frombuffer(data, dtype)).reshape(entry.shape)

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.stream.name} is a damaged .safetensors file: {cut(reason, 180)}.")


def _choose(file: _TensorFile, named: str | None, index: ShardIndex | None) -> str:
    tensors = {name: f"{entry.dtype} {shape_text(entry.shape)}" for name, entry in file.entries.items()}
    matrices = [
        name for name, entry in file.entries.items() if len(entry.shape) == 2 and not is_auxiliary(name)
    ]
    whole = None if index is not None else find_index(file.stream.path)
    return choose_tensor(
        file.stream.name,
        tensors,
        named=named,
        tables=matrices,
        readable=[name for name in matrices if file.entries[name].dtype in _READABLE],
        hint="" if whole is None else f"It is a shard: please read {whole.name}, which lists all tensors.",
    )


def _check_matrix(full_name: str, entry: TensorEntry) -> None:
    if entry.dtype not in _READABLE:
        reason = ""
        if entry.dtype in _PACKED:
            reason = " Packed integers (GPTQ, AWQ, bitsandbytes) are not read. Please save it as float32."
        raise InputError(f"{full_name} is {cut(entry.dtype, 20)}, expected {', '.join(_READABLE)}.{reason}")
    if len(entry.shape) != 2:
        raise InputError(
            f"{full_name} has shape {shape_text(entry.shape)}, expected a floating-point matrix [rows, dim]."
        )


def _open_scale(file: _TensorFile, name: str, full_name: str, index: ShardIndex | None) -> Scale | None:
    """Return the scale of an int8 or fp8 matrix; None for an fp8 matrix without one."""
    entry = file.entries[name]
    whole = find_index(file.stream.path)
    if index is None and whole is not None:
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
    if scale is None and entry.dtype == "I8":
        raise InputError(
            f"{full_name} is I8 without a scale: there is no {listing(scale_names(name), 150)}. Please save "
            "it as float32, multiplied by its scale; unscaled if only directions matter, as in model2vec."
        )
    if scale is None:
        return None
    if scale in file.entries and file.entries[scale].end <= entry.begin:
        return _read_scale(file, scale, entry.shape)
    with closing(_reopen(file, scale, index)) as stream:
        return _read_scale(_TensorFile(stream), scale, entry.shape)


def _reopen(file: _TensorFile, scale: str, index: ShardIndex | None) -> InputStream:
    """Open the file of a scale that lies after its matrix or in another shard."""
    if index is not None and scale not in file.entries:
        return index.open_shard(scale)
    if file.stream.path is None:
        raise InputError(
            f"{file.full_name(scale)} is after the tensor that it scales, and cannot be read first. "
            "Please pass the path of the file."
        )
    return InputStream(file.stream.path)


def _read_scale(file: _TensorFile, name: str, shape: tuple[int, ...]) -> Scale:
    full_name = file.full_name(name)
    entry = file.entries.get(name)
    if entry is None:
        raise InputError(f"{full_name} is missing, but listed in the index. Please download both again.")
    if entry.dtype not in _SCALES:
        raise InputError(f"{full_name} is {cut(entry.dtype, 20)}, expected a scale of {', '.join(_SCALES)}.")
    block_shape(full_name, entry.shape, shape)
    return Scale(name, factors_of(name, file.read(name)), shape)
