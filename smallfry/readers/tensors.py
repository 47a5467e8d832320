"""One matrix of a .safetensors file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from smallfry.errors import InputError
from smallfry.readers.matrix import MatrixRecords
from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.stream import InputStream
from smallfry.readers.words import open_words
from smallfry.sfq.safetensors import PREFIX, TensorEntry, parse_entry, parse_header, tensor_dtype

MAX_HEADER = 100_000_000
"""Longest header, in bytes; the limit of the safetensors package."""

_FLOATS = ("F64", "F32", "F16", "BF16")


def open_safetensors(
    stream: InputStream, options: ReadOptions, report: ReadReport, stack: ExitStack
) -> MatrixRecords:
    """Open the matrix `options.tensor`, or the only floating-point matrix.

    `stack` closes the files opened here.
    """
    damaged = _damaged(stream.name)
    entries = _read_entries(stream, damaged)
    name = _choose(stream.name, entries, options.tensor)
    full_name, entry = f"{stream.name}:{name}", entries[name]
    if entry.dtype not in _FLOATS:
        raise InputError(f"{full_name} is {entry.dtype}, expected {', '.join(_FLOATS)}.")
    if len(entry.shape) != 2:
        raise InputError(
            f"{full_name} has {len(entry.shape)} dimensions, expected a floating-point matrix [rows, dim]."
        )
    dtype = tensor_dtype(name, entry, damaged)
    if stream.skip(entry.begin) < entry.begin:
        raise InputError(f"{stream.name} ends before {full_name} begins. Please copy or download it again.")
    records = MatrixRecords(stream, full_name, entry.shape, dtype)
    if options.words:
        records.words = open_words(options.words, records.rows, options, report, stack)
    return records


def _damaged(name: str) -> Callable[[str], InputError]:
    return lambda reason: InputError(f"{name} is a damaged .safetensors file: {reason}.")


def _read_entries(stream: InputStream, damaged: Callable[[str], InputError]) -> dict[str, TensorEntry]:
    size = int.from_bytes(stream.read(PREFIX), "little")
    if size > MAX_HEADER:
        raise InputError(f"{stream.name} is not a .safetensors file: its header would take {size:,} bytes.")
    entries, metadata = parse_header(stream.read(size), damaged)
    if metadata.get("format") == "sfq":
        raise InputError(
            f"{stream.name} is a .sfq file: it is already compressed. Please use the file it was made from."
        )
    return {name: parse_entry(name, entry, damaged) for name, entry in entries.items()}


def _choose(name: str, entries: dict[str, TensorEntry], tensor: str | None) -> str:
    if tensor is not None:
        if tensor not in entries:
            raise InputError(f"{name} has no tensor {tensor!r}. It has {_shown(list(entries)) or 'none'}.")
        return tensor
    matrices = {
        key: f"{key} {entry.dtype} {list(entry.shape)}"
        for key, entry in entries.items()
        if entry.dtype in _FLOATS and len(entry.shape) == 2
    }
    if len(matrices) != 1:
        shown = _shown(list(matrices.values()))
        raise InputError(
            f"{name} has {len(matrices)} floating-point matrices{': ' if shown else ''}{shown}. "
            "Please name the one to read with tensor= (--tensor)."
        )
    return next(iter(matrices))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
