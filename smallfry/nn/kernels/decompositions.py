"""The operators in terms of torch's own, for exporters that translate those, as `torch.onnx.export` does.

They use only operators that have a counterpart in ONNX, and take dynamic shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smallfry.nn.kernels import torch_impl
from smallfry.nn.packed import Packed


def decode(ids: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401 - the fields of Packed
    """Decompose ``smallfry::decode``."""
    packed = Packed(*parts)
    return _rows(ids.reshape(-1), packed).to(packed.dtype).reshape(*ids.shape, packed.dim)


def bag(ids: Tensor, offsets: Tensor | None, weights: Tensor | None, *rest: Any) -> Tensor:  # noqa: ANN401
    """Decompose ``smallfry::bag``."""
    *parts, mode, padding_idx, include_last_offset = rest
    packed = Packed(*parts)
    ids, offsets, weights, include_last_offset = torch_impl.with_offsets(
        ids, offsets, weights, include_last_offset
    )
    values = _rows(ids, packed)
    if weights is not None:
        values = values * weights.to(values.dtype).unsqueeze(1)
    offsets = offsets.to(torch.int64)
    bags, n = offsets.shape[0] - include_last_offset, ids.shape[0]
    # The bag of a position is the number of offsets up to it, less one; the last one collects excluded rows.
    starts = offsets.new_zeros(n + 1).scatter_add(0, offsets, torch.ones_like(offsets))
    target = torch.where(ids == padding_idx, bags, starts.cumsum(0)[:n] - 1)
    index = target.unsqueeze(1).expand_as(values)
    if mode == "max":
        lowest = values.new_full((bags + 1, packed.dim), float("-inf"))
        pooled = lowest.scatter_reduce(0, index, values, "amax")
        pooled = pooled.masked_fill(pooled == float("-inf"), 0.0)
    else:
        pooled = values.new_zeros(bags + 1, packed.dim).scatter_add(0, index, values)
    if mode == "mean":
        count = values.new_zeros(bags + 1).scatter_add(0, target, values.new_ones(n))
        pooled = pooled / count.clamp(min=1).unsqueeze(1)
    return pooled[:bags].to(packed.dtype)


def linear(input: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    """Decompose ``smallfry::linear``."""
    packed = Packed(*parts)
    rows = torch_impl.unpack(packed)
    if packed.zero_rows is not None:
        rows = rows.index_fill(0, packed.zero_rows, 0.0)
    return input @ rows.to(packed.dtype).to(input.dtype).T


def _rows(flat: Tensor, packed: Packed) -> Tensor:
    rows = torch_impl.values(flat, packed._replace(zero_rows=None))
    if packed.zero_rows is None:
        return rows
    # ONNX has no binary search.
    zero = torch.zeros(len(packed.codes), dtype=torch.bool, device=flat.device)
    zero = zero.scatter(0, packed.zero_rows, True)
    return rows.masked_fill(zero.index_select(0, flat).unsqueeze(1), 0.0)
