"""Sharded .safetensors: the index that names the shard of each tensor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from smallfry.errors import InputError
from smallfry.progress import Progress
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut

MAX_INDEX = 100_000_000
"""Longest index, in bytes."""

_INDEX = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_SHARD = re.compile(r"[^/\\\0]+\.safetensors")
_SHARD_NUMBER = re.compile(r"-\d+-of-\d+(?=\.safetensors$)")


class ShardIndex(NamedTuple):
    """The index of a sharded model, as Hugging Face's ``model.safetensors.index.json``."""

    path: Path
    shards: dict[str, str]
    """File name of the shard of each tensor; the shards are in the index's folder."""

    def open_shard(self, tensor: str, progress: Progress | None = None) -> InputStream:
        """Open the shard of a tensor."""
        shard = self.shards[tensor]
        if not _SHARD.fullmatch(shard):
            raise InputError(
                f"{self.path.name} names the shard {cut(shard, 100)!r}, expected a .safetensors file in its "
                "own folder. Please download the model as safetensors."
            )
        try:
            return InputStream(self.path.with_name(shard), progress)
        except FileNotFoundError:
            raise InputError(
                f"{cut(shard, 100)}, the shard of tensor {cut(tensor, 100)}, is missing in the folder of "
                f"{self.path.name}. Please download it."
            ) from None


def is_index(stream: InputStream) -> bool:
    """Return whether the stream is the index of a sharded model, damaged or not."""
    if not _INDEX.match(stream.peek(64)):
        return False
    return stream.name.endswith(".index.json") or b'"weight_map"' in stream.peek(1 << 16)


def read_index(stream: InputStream) -> ShardIndex:
    """Read the index of a sharded model."""
    if stream.path is None:
        raise InputError(f"{stream.name} is an index of shards, which lie next to it. Please pass its path.")
    try:
        data = stream.read(MAX_INDEX + 1)
        if len(data) > MAX_INDEX:
            raise ValueError(f"it has more than {MAX_INDEX:,} bytes")
        content = json.loads(data)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise ValueError("it has no object weight_map of tensor names and shards")
    except (ValueError, RecursionError) as error:
        reason = cut(str(error) or type(error).__name__, 150)
        raise InputError(
            f"{stream.name} is a damaged index of shards: {reason}. Please download it again."
        ) from None
    return ShardIndex(stream.path, shards)


def find_index(path: Path | None) -> Path | None:
    """Return the index next to a shard, ``model-00001-of-00002.safetensors``, if it exists."""
    if path is None or not _SHARD_NUMBER.search(path.name):
        return None
    index = path.with_name(_SHARD_NUMBER.sub("", path.name) + ".index.json")
    return index if index.is_file() else None
