"""Lookup in plain torch, for devices without a kernel of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from smallfry.nn.packed import Packed

# Number of decoded values of bags summed at a time.
_CHUNK_VALUES = 1 << 21


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Return the rows at ``ids``, ``[*ids.shape, dim]``, in ``packed.dtype``.

    An id out of range raises IndexError on CPU and aborts the program on CUDA.
    """
    flat = ids.reshape(-1)
    return values(flat, packed).to(packed.dtype).reshape(*ids.shape, packed.dim)


def bag(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Packed,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool the rows at ``ids`` into bags, ``[bags, dim]``, decoding chunks of rows.

    The arguments are those of `QuantEmbeddingBag`; ``padding_idx`` is -1 for none.
    """
    ids, offsets, weights, include_last_offset = with_offsets(ids, offsets, weights, include_last_offset)
    bags = len(offsets) - include_last_offset
    position = torch.arange(len(ids), device=ids.device)
    # Rows outside of every bag go to an additional bag, which is dropped at the end.
    target = torch.searchsorted(offsets.to(torch.int64), position, right=True) - 1
    target = torch.where(ids == padding_idx, bags, target)
    pooled = ids.new_full(
        (bags + 1, packed.dim), float("-inf") if mode == "max" else 0.0, dtype=compute_dtype(packed)
    )
    step = max(1, _CHUNK_VALUES // packed.dim)
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        picked = values(ids[rows], packed)
        if weights is not None:
            picked = picked * weights[rows].to(picked.dtype).unsqueeze(1)
        if mode == "max":
            pooled.scatter_reduce_(0, target[rows].unsqueeze(1).expand_as(picked), picked, "amax")
        else:
            pooled.index_add_(0, target[rows], picked)
    pooled = pooled[:bags]
    if mode != "sum":
        count = torch.bincount(target, minlength=bags + 1)[:bags].unsqueeze(1)
        pooled = pooled / count.clamp(min=1) if mode == "mean" else pooled.masked_fill(count == 0, 0.0)
    return pooled.to(packed.dtype)


def with_offsets(
    ids: Tensor, offsets: Tensor | None, weights: Tensor | None, include_last_offset: bool
) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """Return the arguments for one-dimensional ids, if they are ``[bags, n]`` without offsets."""
    if offsets is not None:
        return ids, offsets, weights, include_last_offset
    bags, size = ids.shape
    starts = torch.arange(bags + 1, device=ids.device, dtype=ids.dtype) * size
    return ids.reshape(-1), starts, None if weights is None else weights.reshape(-1), True


def compute_dtype(packed: Packed) -> torch.dtype:
    """Return float32, or float64 for a 32-bit table of float64."""
    return torch.promote_types(packed.dtype, torch.float32) if packed.codebook is None else torch.float32


def unpack(packed: Packed) -> Tensor:
    """Return every row, ``[rows, dim]``, in `compute_dtype`; ``zero_rows`` is ignored."""
    values = _codebook_values(packed)
    if packed.column_scale is not None:
        values = values * packed.column_scale.to(values.dtype)
    if packed.row_scale is not None:
        values = values * packed.row_scale.to(values.dtype).unsqueeze(1)
    return values if packed.mean is None else values + packed.mean.to(values.dtype)


def values(flat: Tensor, packed: Packed) -> Tensor:
    """Return the rows at one-dimensional ``flat``, ``[n, dim]``, in `compute_dtype`."""
    scale = packed.row_scale
    rows = unpack(
        packed._replace(
            codes=packed.codes.index_select(0, flat),
            row_scale=None if scale is None else scale.index_select(0, flat),
        )
    )
    if packed.zero_rows is not None:
        wanted = flat.to(torch.int64)
        found = torch.searchsorted(packed.zero_rows, wanted).clamp(max=len(packed.zero_rows) - 1)
        rows = rows.masked_fill((packed.zero_rows[found] == wanted).unsqueeze(1), 0.0)
    return rows


def _codebook_values(packed: Packed) -> Tensor:
    codes, dtype = packed.codes, compute_dtype(packed)
    if packed.codebook is None:
        return codes.to(dtype)
    codebook = packed.codebook.to(dtype)
    if len(codebook) > 2**packed.nbit:
        return torch.embedding(codebook.unsqueeze(1), _windows(packed)).flatten(1)
    if packed.nbit == 16:
        low, high = codes[:, 0::2].to(torch.int32), codes[:, 1::2].to(torch.int32)
        table, index = codebook.unsqueeze(1), low | high << 8
    else:
        table, index = _byte_table(codebook, packed.nbit), codes.to(torch.int32)
    return torch.embedding(table, index).flatten(1)[:, : packed.dim]


def _windows(packed: Packed) -> Tensor:
    """Return codebook positions of trellis codes, ``[rows, dim]``: windows of the ring of a row's bits."""
    codes, dim, nbit = packed.codes.to(torch.int64), packed.dim, packed.nbit
    assert packed.codebook is not None
    width = len(packed.codebook).bit_length() - 1
    start = torch.arange(dim, device=codes.device) * nbit
    # A window begins within a byte and ends at most two bytes on; the ring has at least its bits.
    ahead = (dim * nbit - start).clamp(max=width)
    byte, end = start // 8, codes.shape[1] - 1
    low, first = torch.zeros_like(codes[:, :1]), torch.zeros_like(codes[:, :1])
    for k in range(3):
        low = low | codes.index_select(1, (byte + k).clamp(max=end)) << 8 * k
        first = first | codes[:, min(k, end)].unsqueeze(1) << 8 * k
    low = torch.bitwise_right_shift(low, start % 8)
    low = low & (torch.bitwise_left_shift(torch.ones_like(ahead), ahead) - 1)
    windows: Tensor = (low | torch.bitwise_left_shift(first, ahead)) & (2**width - 1)
    return windows


def _byte_table(codebook: Tensor, nbit: int) -> Tensor:
    """Return the values of each byte, ``[256, 8 / nbit]``, low bits first."""
    byte = torch.arange(256, device=codebook.device).unsqueeze(1)
    shift = torch.arange(0, 8, nbit, device=codebook.device)
    return codebook[torch.bitwise_right_shift(byte, shift) & (2**nbit - 1)]
