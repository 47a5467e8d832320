"""Fuzz the readers of vectors: reading any input raises InputError or returns vectors."""

from __future__ import annotations

import io
import json
import sys

import atheris

with atheris.instrument_imports(include=["smallfry"], enable_loader_override=False):
    from smallfry.errors import InputError
    from smallfry.readers import open_vectors
    from smallfry.readers.source import FORMATS

import numpy as np

KINDS = (None, *FORMATS)


def fuzz(data: bytes) -> None:
    """Read one input, in a named or a detected format."""
    if len(data) < 2:
        return
    kind = KINDS[data[0] % len(KINDS)]
    if kind in ("npz", "fasttext") and data[1] & 8:
        return  # writes a file each time, which is slow
    content = data[2:]
    if data[1] & 4:
        content = framed(kind, content)
    try:
        source = open_vectors(
            io.BytesIO(content),
            format=None if data[1] & 16 else kind,
            skip_bad_lines=bool(data[1] & 1),
            strict=bool(data[1] & 2),
            encoding="utf-16" if data[1] & 32 else None,
        )
        rows = 0
        for tokens, vectors in source.chunks():
            assert vectors.dtype == np.float32 and vectors.shape[1] == source.dim
            assert np.isfinite(vectors).all()
            assert tokens is None or len(tokens.offsets) == len(vectors) + 1
            rows += len(vectors)
        assert rows == source.report.rows
    except InputError:
        return


def framed(kind: str | None, content: bytes) -> bytes:
    """Prepend the header of the format, to reach the code behind it."""
    first, rest = content[:8], content[8:]
    if kind == "npy":
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rest) // 8}, 2), }}".encode()
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + rest
    if kind == "safetensors":
        shape = [len(rest) // 8, 2]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, len(rest) // 8 * 8]}
        text = json.dumps({"x": entry}).encode()
        return len(text).to_bytes(8, "little") + text + rest
    if kind in ("word2vec", "word2vec-binary"):
        return b"%d %d\n" % (first[0] % 9 if first else 0, 1 + (first[-1] % 4 if first else 0)) + rest
    return content


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
