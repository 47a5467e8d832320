"""A ``.sfq`` file built by hand, so that any single part can be made invalid."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DTYPES = {"uint64": "U64", "float32": "F32", "uint32": "U32", "float16": "F16", "uint8": "U8"}


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
