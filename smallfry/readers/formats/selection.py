"""The tensors of a .safetensors file, or of a sharded model, that a pattern selects."""

from __future__ import annotations

import os
import re
from contextlib import closing
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from smallfry.errors import InputError
from smallfry.readers.formats.scale import is_auxiliary
from smallfry.readers.formats.shards import ShardIndex, find_index, is_index, read_index
from smallfry.readers.formats.tensors import FLOATS, TensorFile, check_matrix, open_scale
from smallfry.readers.input.detect import detect
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import MAX_MESSAGE, cut, listing, shape_text
from smallfry.readers.records import check_dim
from smallfry.readers.stored import StoredMatrix, StoredRows

_SPECIAL = re.compile(r"[*?\[]")
_NUMBER = re.compile(r"([0-9]+)")


def is_pattern(tensor: str | None) -> bool:
    """Return whether the name of a tensor is a pattern of `fnmatch`."""
    return tensor is not None and _SPECIAL.search(tensor) is not None


def open_selection(path: Path, pattern: str) -> StoredMatrix:
    """Return the tensors whose full names match a pattern, as consecutive rows of one matrix.

    They are in the natural order of their names: ``ngram.2`` before ``ngram.10``. Scales and zero points are
    not selected, and int8 and fp8 are multiplied by their scales.

    Parameters
    ----------
    path : Path
        A .safetensors file, or the index of a sharded model. Neither is compressed.
    pattern : str
        As in `fnmatch.fnmatchcase`: ``*``, ``?`` and ``[…]``.

    Raises
    ------
    InputError
        No tensor matches, one cannot be read, or their widths differ.
    OSError
        A file cannot be read.
    """
    with closing(InputStream(path)) as stream:
        if stream.stored_path is None or detect(stream) != "safetensors":
            raise InputError(
                f"{stream.name} is not an uncompressed .safetensors file, or an index of them: a pattern "
                f"{cut(pattern, 80)!r} cannot select its tensors. Please give the name of one, or none."
            )
        if is_index(stream):
            index = read_index(stream)
            names = select(stream.name, list(index.shards), pattern)
            parts = _from_shards(index, names)
        else:
            file = TensorFile(stream)
            names = select(stream.name, list(file.entries), pattern)
            _check_whole(path, names, pattern)
            _check_size(file)
            parts = [_stored(file, name, None) for name in names]
    _check_equal(parts)
    return StoredMatrix(parts, names)


def select(file: str, names: list[str], pattern: str) -> list[str]:
    """Return the names of tensors that match, in natural order.

    A name that equals the pattern is the only one. `file` is the name of the file, for messages.
    """
    names = [name for name in names if not is_auxiliary(name)]
    found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
    if found:
        return sorted(found, key=_natural)
    literal = max(re.split(r"\[.*?\]|[*?\[]", pattern), key=len).lower()
    similar = [name for name in names if literal and literal in name.lower()]
    similar += get_close_matches(literal, names, 5, 0.3)
    start = f"{cut(file, 100)} has no tensor that matches {cut(pattern, 80)!r}. It has "
    action = ". Please correct the pattern (--tensor)."
    shown = listing(list(dict.fromkeys([*similar, *names])), MAX_MESSAGE - len(start + action) - 20)
    raise InputError(f"{start}{shown or 'none'}{action}")


def _natural(name: str) -> list[str | int]:
    """Return a sort key that compares numbers by their values."""
    return [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]


def _from_shards(index: ShardIndex, names: list[str]) -> list[StoredRows]:
    files: dict[str, TensorFile] = {}
    parts = []
    for name in names:
        shard = index.shards[name]
        if shard not in files:
            with closing(index.open_shard(name)) as stream:
                if stream.stored_path is None:
                    raise InputError(f"{stream.name} is compressed. Please decompress it.")
                files[shard] = TensorFile(stream)
                _check_size(files[shard])
        parts.append(_stored(files[shard], name, index))
    return parts


def _stored(file: TensorFile, name: str, index: ShardIndex | None) -> StoredRows:
    full_name = file.full_name(name)
    entry = file.entries.get(name)
    if entry is None:
        raise InputError(f"{full_name} is missing, but listed in the index. Please download both again.")
    check_matrix(full_name, entry)
    check_dim(full_name, entry.shape[1])
    return file.stored(name, None if entry.dtype in FLOATS else open_scale(file, name, index))


def _check_size(file: TensorFile) -> None:
    """Raise InputError if a file is shorter than its header declares."""
    held = os.stat(file.stream.path or "").st_size
    declared = file.data_start + max((entry.end for entry in file.entries.values()), default=0)
    if held < declared:
        raise InputError(
            f"{file.stream.name} has {held:,} bytes, and its header declares {declared:,}. "
            "Please copy or download it again."
        )


def _check_whole(path: Path, names: list[str], pattern: str) -> None:
    """Raise InputError if a file is a shard, and others have tensors that match."""
    whole = find_index(path)
    if whole is None:
        return
    with closing(InputStream(whole)) as stream:
        index = read_index(stream)
    others = {name for name in index.shards if fnmatchcase(name, pattern) and not is_auxiliary(name)}
    if others - {*names} and pattern not in names:
        raise InputError(
            f"{path.name} is a shard, and others have {len(others - {*names}):,} more tensors that match "
            f"{cut(pattern, 80)!r}. Please read {whole.name}, which lists all tensors."
        )


def _check_equal(parts: list[StoredRows]) -> None:
    """Raise InputError unless all have the same width, and those of int8 and fp8 have scales, or none."""
    first = parts[0]
    for part in parts[1:]:
        if part.shape[1] != first.shape[1]:
            raise InputError(
                f"{first.name} has shape {shape_text(first.shape)} and {part.name} {shape_text(part.shape)}, "
                "expected rows of the same length. Please select others (--tensor)."
            )
    quantized = [part for part in parts if part.dtype.itemsize == 1]
    scaled = [part for part in quantized if part.scale is not None]
    missing = [part for part in quantized if part.scale is None]
    if scaled and missing:
        raise InputError(
            f"{missing[0].name} has no scale, and {scaled[0].name} has one. "
            "Please download the model again, or select others (--tensor)."
        )
