"""Products with a packed table in plain torch, decoding a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from smallfry.nn.packed import Packed

# Number of decoded values held at a time.
_CHUNK_VALUES = 1 << 21

Decode = Callable[[Tensor, Packed], Tensor]


def linear(input: Tensor, packed: Packed, decode: Decode) -> Tensor:
    """Return ``input @ table.T``, ``[..., rows]``, in the dtype of ``input``."""
    if packed.plain and packed.dtype == input.dtype:
        return input @ packed.codes.T
    out = input.new_empty((*input.shape[:-1], packed.rows))
    for start, rows in _chunks(packed, input.dtype, decode):
        out[..., start : start + len(rows)] = input @ rows.T
    return out


def linear_backward(gradient: Tensor, packed: Packed, decode: Decode) -> Tensor:
    """Return ``gradient @ table``, ``[..., dim]``, in the dtype of ``gradient``."""
    if packed.plain and packed.dtype == gradient.dtype:
        return gradient @ packed.codes
    # Half-precision chunks are summed in float32.
    total = torch.promote_types(gradient.dtype, torch.float32)
    out = gradient.new_zeros((*gradient.shape[:-1], packed.dim), dtype=total)
    for start, rows in _chunks(packed, gradient.dtype, decode):
        out += gradient[..., start : start + len(rows)] @ rows
    return out.to(gradient.dtype)


def _chunks(packed: Packed, dtype: torch.dtype, decode: Decode) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _CHUNK_VALUES // packed.dim)
    for start in range(0, packed.rows, step):
        ids = torch.arange(start, min(start + step, packed.rows), device=packed.codes.device)
        yield start, decode(ids, packed).to(dtype)
