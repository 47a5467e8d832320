"""Large tables of random codes, written directly as ``.sfq`` files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.paging import Paging
from smallfry.sfq.header import build_header
from smallfry.sfq.metadata import Metadata

DIM = 160
_STATE_BITS = 8
_BLOCKS = 1 << 13  # written at a time


def write_table(path: Path, rows: int, nbit: int, *, paged: bool = True, sparse: bool = False) -> None:
    """Write a trellis table with row scales; a sparse one has no codes on the disk."""
    paging, rng = Paging(rows, DIM * nbit // 8), np.random.default_rng(0)
    codebook = rng.standard_normal(2**_STATE_BITS, np.float32)
    codebook.view(np.uint32)[:] &= 0xFFFF0000  # bfloat16, as those that are learned
    tensors: dict[str, NDArray[Any]] = {
        "codes": _absent(np.uint8, *paging.shape) if paged else _absent(np.uint8, rows, paging.stride),
        "codebook": codebook,
        "column_scale": rng.uniform(0.5, 2, DIM).astype(np.float32),
    }
    if not paged:
        tensors["row_scale"] = _absent(np.float16, rows)
    metadata = Metadata(rows, DIM, nbit, "trellis", 1.0, 0.0, paged=paged).strings()
    raw, names = build_header(tensors, metadata | {f"sha256.{name}": "0" * 64 for name in tensors})
    with open(path, "wb") as file:
        file.write(raw)
        for name in names:
            if name in ("codebook", "column_scale"):
                file.write(tensors[name].tobytes())
            elif sparse:
                file.seek(tensors[name].nbytes, os.SEEK_CUR)
            elif name == "row_scale":
                file.write(rng.uniform(0.5, 2, rows).astype(np.float16).tobytes())
            else:
                for part in _blocks(rng, tensors["codes"].shape, paging if paged else None):
                    file.write(part.data)
        file.truncate()
        os.fsync(file.fileno())


def _absent(dtype: type[np.generic], *shape: int) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)


def _blocks(
    rng: np.random.Generator, shape: tuple[int, ...], paging: Paging | None
) -> Iterator[NDArray[np.uint8]]:
    step = _BLOCKS * 4096 // shape[1]
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        codes = np.frombuffer(rng.bytes(count * shape[1]), np.uint8).reshape(count, -1)
        if paging is not None:
            codes = codes.copy()
            records = paging.records(codes)
            scale = rng.uniform(0.5, 2, records.shape[:2]).astype(np.float16)
            records[:, :, paging.stride :] = scale[:, :, None].view(np.uint8)
            records.reshape(-1, paging.record)[paging.rows - start * paging.per_block :] = 0
        yield codes
