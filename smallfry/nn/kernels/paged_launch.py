"""Decode records of a paged table on a GPU: launch the Triton kernel."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.nn.kernels import paged_kernels as kernels
from smallfry.nn.kernels.triton_launch import STORE_BYTES, STORES, WARPS
from smallfry.table import Table


class Decoding(NamedTuple):
    """What decodes the records of a paged table, as tensors on a device.

    Attributes
    ----------
    codebook : Tensor of float32, shape [2**width]
    mean, column_scale : Tensor of float32, shape [dim], or None
    head_offsets : Tensor of int64, shape [heads + 1], or None
    rows, dim, nbit, record, per_block, block : int
        Those of the table and of its `smallfry.paging.Paging`.
    even : bool
        Whether the codebook is ``(k - 32767.5) * step``, bit for bit: its values are computed, not loaded.
    """

    codebook: Tensor
    mean: Tensor | None
    column_scale: Tensor | None
    head_offsets: Tensor | None
    rows: int
    dim: int
    nbit: int
    record: int
    per_block: int
    block: int
    even: bool

    @classmethod
    def of(cls, table: Table, device: torch.device) -> Decoding:
        """Return the tensors of a paged table on a device."""
        paging, heads = table.paging, table.head_offsets
        assert paging is not None
        assert table.codebook is not None

        def send(array: NDArray[Any] | None) -> Tensor | None:
            # Copied, because the array may be mapped.
            return None if array is None else torch.from_numpy(array.copy()).to(device)

        codebook = send(table.codebook)
        assert codebook is not None
        return cls(
            codebook=codebook,
            mean=send(table.mean),
            column_scale=send(table.column_scale),
            head_offsets=None if heads is None else send(heads.astype(np.int64)),
            rows=table.rows,
            dim=table.dim,
            nbit=table.nbit,
            record=paging.record,
            per_block=paging.per_block,
            block=paging.block,
            even=table.nbit == 16 and _is_even(table.codebook),
        )

    def of_records(self) -> Decoding:
        """Return the same for records one after another, without padding and without heads."""
        return self._replace(head_offsets=None, per_block=1, block=self.record)


def gather(ids: Tensor | None, records: Tensor, decoding: Decoding, out: Tensor) -> None:
    """Write the rows at ``ids``, or all rows in order if None, to ``out`` in one launch.

    Rows have the bits of the CPU kernels. An id out of range yields a row of NaN.

    Parameters
    ----------
    ids : Tensor of int32 or int64, any shape, or None
    records : Tensor of uint8
        The blocks of the table, in memory that the device reads: its own, or host memory that CUDA maps.
    out : Tensor of float32, float16 or bfloat16, contiguous
    """
    total = out.numel()
    if total == 0:
        return
    group = math.gcd(decoding.dim, STORE_BYTES // out.element_size())
    groups = 32 * WARPS * STORES * STORE_BYTES // out.element_size() // group
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        kernels.gather_records[-(-total // (groups * group)),](
            out,
            None if ids is None else ids.contiguous(),
            decoding.head_offsets,
            total // decoding.dim,
            total,
            decoding.rows,
            records,
            decoding.codebook,
            decoding.mean,
            decoding.column_scale,
            int(decoding.even),
            DIM=decoding.dim,
            NBIT=decoding.nbit,
            WIDTH=len(decoding.codebook).bit_length() - 1,
            H=group,
            RECORD=decoding.record,
            PER_BLOCK=decoding.per_block,
            BLOCK=decoding.block,
            HEADS=0 if decoding.head_offsets is None else len(decoding.head_offsets) - 1,
            GROUPS=groups,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )


def _is_even(codebook: NDArray[np.float32]) -> bool:
    levels = np.arange(len(codebook), dtype=np.float32) - np.float32((len(codebook) - 1) / 2)
    return np.array_equal(levels * (codebook[len(codebook) // 2] * 2), codebook)
