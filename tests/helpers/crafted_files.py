"""A ``.sfq`` file built by hand, so that any single part can be made invalid."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.sfq import file as sfq
from smallfry.sfq import safetensors
from smallfry.sfq.header import build_header
from smallfry.text.merges import build_merge_index
from smallfry.text.model import CODE_POINT_BLOCKS, Pooling

DTYPES = {
    "float64": "F64",
    "uint64": "U64",
    "float32": "F32",
    "uint32": "U32",
    "float16": "F16",
    "uint16": "U16",
    "uint8": "U8",
}
EMPTY: dict[str, Any] = {"normalizer": [], "pre_tokenizer": [], "added": []}
#: Those of a tokenizer, in the order of their ids.
TOKENS = "abcd"
MODELS: dict[str, dict[str, Any]] = {
    "wordpiece": {"type": "wordpiece", "unknown": 0, "prefix": "", "max_characters": 1 << 20},
    "unigram": {"type": "unigram", "unknown": 0, "byte_fallback": False},
    "bpe": {
        "type": "bpe",
        "unknown": 0,
        "fuse_unknown": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
}


def settings_array(settings: dict[str, Any]) -> np.ndarray:
    """Return the tensor ``tokenizer``; keys that are missing are added."""
    return np.frombuffer(json.dumps(EMPTY | settings).encode(), np.uint8)


def rewrite_as_version(path: Path, version: str) -> None:
    """Rewrite a file as one of another version, with metadata and a tensor of each dtype that are unknown."""
    file = sfq.map(path)
    tensors = sfq.arrays(file.table, file.vocabulary, file.text)
    tensors |= {f"unknown_{name}": np.zeros(3, dtype) for name, dtype in safetensors.DTYPES.items()}
    raw, names = build_header(tensors, file.header.metadata | {"version": version, "unknown": "text"})
    path.write_bytes(raw + b"".join(tensors[name].tobytes() for name in names))


@dataclass
class Crafted:
    """4 rows of 5 values at 2 bits, with a vocabulary; change any attribute, then take `raw()`."""

    arrays: dict[str, Any] = field(
        default_factory=lambda: {
            "token_offsets": np.array([0, 1, 2, 3, 4], np.uint64),
            "codebook": np.array([-1.5, -0.5, 0.5, 1.5], np.float32),
            "token_index": np.zeros(69, np.uint32),
            "zero_rows": np.array([1, 3], np.uint32),
            "codes": np.array([[0, 1], [2, 3], [4, 1], [6, 3]], np.uint8),
            "tokens": np.frombuffer(b"abcd", np.uint8),
        }
    )
    metadata: dict[str, Any] = field(
        default_factory=lambda: {
            "format": "sfq",
            "version": "2",
            "rows": "4",
            "dim": "5",
            "nbit": "2",
            "codebook_kind": "uniform",
            "clip": "1.5",
            "frobenius_error": "0.25",
            "token_hash_seed": "0",
            "created_by": "a test",
        }
    )
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: bool = True
    alignment: int = 4096
    tail: bytes = b""

    @classmethod
    def trellis(cls, values: int = 256) -> "Crafted":
        """Return the table with trellis codes of 10 bits a row and column scales, without a vocabulary."""
        crafted = cls()
        for name in ("tokens", "token_offsets", "token_index"):
            del crafted.arrays[name]
        crafted.add(
            codebook=np.linspace(-2, 2, values, dtype=np.float32), column_scale=np.ones(5, np.float32)
        )
        crafted.metadata["codebook_kind"] = "trellis"
        return crafted

    @classmethod
    def paged(cls) -> "Crafted":
        """Return the table in one block of records of 4 bytes, with scales 1, 0, 2 and 0.5."""
        crafted = cls()
        blocks = np.zeros((1, 4096), np.uint8)
        scales = np.array([1, 0, 2, 0.5], np.float16)
        records = np.concatenate([crafted.arrays["codes"], scales[:, None].view(np.uint8)], axis=1)
        blocks[0, :16] = records.reshape(-1)
        crafted.arrays = {"codes": blocks, "codebook": crafted.arrays["codebook"]}
        crafted.metadata["layout"] = "paged"
        return crafted

    @classmethod
    def text(cls, model: str, **steps: list[dict[str, Any]]) -> "Crafted":
        """Return the table with a tokenizer of `TOKENS`: a "wordpiece", "unigram" or "bpe" model."""
        crafted = cls()
        for name in ("tokens", "token_offsets", "token_index"):
            del crafted.arrays[name]
        trie = np.zeros(768, np.uint32)  # of a root, nodes that it leads to, and their leaves
        trie[0] = 256 << 10
        for token, name in enumerate(TOKENS):
            trie[256 + ord(name)] = ord(name) | 256 | (256 ^ 512) << 10
            trie[512 + ord(name)] = 1 << 31 | token
        crafted.add(
            tokenizer=settings_array({"model": MODELS[model]} | steps),
            token_trie=trie,
            character_blocks=np.zeros(CODE_POINT_BLOCKS, np.uint16),
            characters=np.zeros(256, np.uint32),
            character_text=np.frombuffer(b"\1a", np.uint8),
        )
        if model == "unigram":
            crafted.add(token_scores=np.array([-1, -2, -3, -4], np.float64))
        if model == "bpe":
            merges = np.array([[0, 1, 2], [2, 2, 3]], np.uint32)
            crafted.add(token_merges=merges, merge_index=build_merge_index(merges))
        crafted.metadata["pooling"] = Pooling(len(TOKENS)).serialize()
        return crafted

    def add(self, **arrays: np.ndarray) -> None:
        """Add or replace arrays, and keep them in the order of their item sizes."""
        self.arrays = dict(sorted((self.arrays | arrays).items(), key=lambda item: -item[1].itemsize))

    def header(self) -> dict[str, Any]:
        metadata = dict(self.metadata)
        content: dict[str, Any] = {"__metadata__": metadata}
        end = 0
        for name, array in self.arrays.items():
            begin, end = end, end + array.nbytes
            content[name] = {
                "dtype": DTYPES[array.dtype.name],
                "shape": list(array.shape),
                "data_offsets": [begin, end],
            } | self.entries.get(name, {})
            if self.digests:
                metadata.setdefault(f"sha256.{name}", hashlib.sha256(array.tobytes()).hexdigest())
        return content

    def raw(self, text: bytes | None = None) -> bytes:
        text = json.dumps(self.header()).encode() if text is None else text
        length = -(-(8 + len(text)) // self.alignment) * self.alignment - 8
        data = b"".join(array.tobytes() for array in self.arrays.values())
        return length.to_bytes(8, "little") + text.ljust(length) + data + self.tail
