"""The paged layout: each row with its scale in a record that crosses no memory page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
"""Bytes of a page."""

_SCALE = np.dtype("<f2")


@dataclass(frozen=True)
class Paging:
    """Where the records of a paged table are.

    A record is the packed codes of a row, followed by its float16 scale. Blocks hold as many whole records
    as fit into a page; a record longer than a page is a block of its own, and blocks follow each other.

    Attributes
    ----------
    rows : int
    stride : int
        Bytes of the packed codes of a row.
    """

    rows: int
    stride: int

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return self.stride + _SCALE.itemsize

    @property
    def per_block(self) -> int:
        """Records in a block."""
        return max(1, PAGE // self.record)

    @property
    def block(self) -> int:
        """Bytes of a block."""
        return max(PAGE, self.record)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks, and bytes of each."""
        return -(-self.rows // self.per_block), self.block

    @property
    def padding(self) -> int:
        """Bytes of the blocks that belong to no record."""
        blocks, block = self.shape
        return blocks * block - self.rows * self.record

    def starts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the byte at which each record starts."""
        blocks, places = np.divmod(ids.astype(np.int64), self.per_block)
        return np.asarray(blocks * self.block + places * self.record)

    def records(self, blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of all records of whole blocks, uint8 ``[blocks, per_block, record]``."""
        used = blocks[:, : self.per_block * self.record]
        return used.reshape(len(blocks), self.per_block, self.record)

    def scales(self, blocks: NDArray[np.uint8], ids: NDArray[np.integer]) -> NDArray[np.float16]:
        """Return the scales of rows, float16 ``[n]``."""
        at = self.starts(ids)[:, None] + np.arange(self.stride, self.record)
        return np.ascontiguousarray(blocks.reshape(-1)[at]).view(_SCALE).reshape(-1).astype(np.float16)

    def codes(self, blocks: NDArray[np.uint8], ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the packed codes of rows, uint8 ``[n, stride]``."""
        codes: NDArray[np.uint8] = blocks.reshape(-1)[self.starts(ids)[:, None] + np.arange(self.stride)]
        return codes

    def fill(
        self, blocks: NDArray[np.uint8], first: int, codes: NDArray[np.uint8], scale: NDArray[np.float16]
    ) -> None:
        """Write the codes and scales of consecutive rows from row `first` on; the rest stays zeros."""
        data = np.concatenate([codes, scale.astype(_SCALE)[:, None].view(np.uint8)], axis=1)
        flat, at = blocks.reshape(-1), first
        while at < first + len(data):
            block, place = divmod(at, self.per_block)
            whole = (first + len(data) - at) // self.per_block if place == 0 else 0
            if whole:
                count = whole * self.per_block
                part = data[at - first : at - first + count]
                blocks[block : block + whole, : self.per_block * self.record] = part.reshape(whole, -1)
            else:
                count = min(self.per_block - place, first + len(data) - at)
                begin = block * self.block + place * self.record
                flat[begin : begin + count * self.record] = data[at - first : at - first + count].reshape(-1)
            at += count
