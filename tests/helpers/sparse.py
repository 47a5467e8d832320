"""Paged tables of any number of rows, in files that are mostly holes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smallfry.paging import Paging
from smallfry.sfq.header import build_header
from smallfry.sfq.metadata import Metadata

DIM, NBIT = 16, 2


def codebook() -> np.ndarray:
    """Return the codebook of the tables: 256 values, none of them zero."""
    return np.linspace(-1, 1, 256, dtype=np.float32)


def write_sparse(path: Path, rows: int, records: Mapping[int, np.ndarray] | None = None) -> Paging:
    """Write a paged trellis table; rows of `records` have those codes and the scale 1, others are holes."""
    paging = Paging(rows, DIM * NBIT // 8)
    tensors = {"codes": np.broadcast_to(np.zeros((), np.uint8), paging.shape), "codebook": codebook()}
    metadata = Metadata(rows, DIM, NBIT, "trellis", 1.0, 0.0, paged=True).strings()
    metadata |= {f"sha256.{name}": "0" * 64 for name in tensors}
    raw, names = build_header(tensors, metadata)
    assert names[0] == "codes"
    with open(path, "wb") as file:
        file.write(raw)
        for row, codes in (records or {}).items():
            file.seek(len(raw) + int(paging.starts(np.array([row]))[0]))
            file.write(np.asarray(codes, np.uint8).tobytes() + np.float16(1).tobytes())
        file.seek(len(raw) + tensors["codes"].nbytes)
        file.write(tensors["codebook"].tobytes())
    return paging
