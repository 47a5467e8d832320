"""Lookups and products on CPU: the native kernels, and torch's for some tables of 32 bits."""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.kernels.numpy.decode import Decoder
from smallfry.nn.kernels import products, torch_impl
from smallfry.nn.packed import Packed

# Most inputs that the native kernel multiplies faster than torch multiplies decoded chunks.
_FEW_INPUTS = 8

# Number of values that torch converts in one thread.
_ONE_THREAD = 1 << 15

# id(codes) → weak reference to the codes, the other tensors, their stamps, the decoder. Expanding the
# codebook costs more than a small lookup, so a decoder is kept as long as its codes. A lookup in torch's own
# dictionaries with weak keys costs as much.
_decoders: dict[int, tuple[ReferenceType[Tensor], tuple[Any, ...], list[int], Decoder]] = {}

# Each call into torch takes a tenth of a small lookup, so calls without effect are left out.


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Return the rows at ``ids``; see `smallfry.nn.kernels.operators.decode`."""
    if packed.codebook is None:
        return torch_impl.decode(ids, packed)
    # NumPy allocates large arrays in huge pages, torch does not: page faults would take half the time of a
    # large batch.
    rows = np.empty((*ids.shape, packed.dim), np.float32)
    _decoder(packed).decode(ids.contiguous().numpy(), rows, None, torch.get_num_threads())
    return _as_tensor(rows, packed.codebook.dtype)


def bag(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Packed,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool the rows at ``ids`` in one pass over the codes; see `smallfry.nn.kernels.operators.bag`."""
    dtype = packed.dtype
    if packed.codebook is None and dtype != torch.float32:
        if packed.plain:
            return _bag_of_values(ids, offsets, weights, packed.codes, mode, padding_idx, include_last_offset)
        return torch_impl.bag(ids, offsets, weights, packed, mode, padding_idx, include_last_offset)
    bags = len(ids) if offsets is None else len(offsets) - include_last_offset
    pooled = np.empty((bags, packed.dim), np.float32)
    _decoder(packed).bag(
        ids.contiguous().numpy(),
        None if offsets is None else offsets.contiguous().numpy(),
        None if weights is None else weights.detach().to(torch.float32).contiguous().numpy(),
        mode,
        None if padding_idx < 0 else padding_idx,
        pooled,
        torch.get_num_threads(),
    )
    return _as_tensor(pooled, dtype)


def linear(input: Tensor, packed: Packed) -> Tensor:
    """Return ``input @ table.T``; see `smallfry.nn.kernels.operators.linear`."""
    half_or_single = (torch.float32, torch.bfloat16, torch.float16)
    few = input.numel() <= _FEW_INPUTS * packed.dim
    if packed.codebook is None or not few or input.dtype not in half_or_single:
        return products.linear(input, packed, decode)
    out = np.empty((*input.shape[:-1], packed.rows), np.float32)
    factors = input.detach().to(torch.float32).contiguous().numpy()
    _decoder(packed).multiply(factors, out, torch.get_num_threads())
    return _converted(torch.from_numpy(out), input.dtype)


def _bag_of_values(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    values: Tensor,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool rows of a matrix of half or double precision."""
    ids, offsets, weights, ended = torch_impl.with_offsets(ids, offsets, weights, include_last_offset)
    if ended and len(offsets):
        end = int(offsets[-1])
        ids, weights = ids[:end], None if weights is None else weights[:end]
    try:
        pooled: Tensor = torch.embedding_bag(
            values,
            ids,
            offsets.to(ids.dtype),
            False,
            ("sum", "mean", "max").index(mode),
            False,
            None if weights is None else weights.detach().to(values.dtype),
            ended,
            None if padding_idx < 0 else padding_idx,
        )[0]
    except RuntimeError as error:
        wrong = ids[(ids < 0) | (ids >= len(values))]
        if len(wrong) == 0:
            raise ValueError(str(error)) from None
        raise IndexError(
            f"row id {int(wrong[0])} is out of range for a table of {len(values)} rows"
        ) from None
    return pooled


def _as_tensor(array: NDArray[np.float32], dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor if dtype is torch.float32 else tensor.to(dtype)


def _converted(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``values.to(dtype)``, converted by one thread.

    The threads of torch spin for a while after an operation, on the cores that the next native kernel uses.
    """
    if dtype is torch.float32:
        return values
    out = torch.empty_like(values, dtype=dtype)
    for part, source in zip(out.view(-1).split(_ONE_THREAD), values.view(-1).split(_ONE_THREAD), strict=True):
        part.copy_(source)
    return out


def _decoder(packed: Packed) -> Decoder:
    """Return the decoder of the tensors of ``packed``, which are on CPU; at 32 bits of float32."""
    codes, others = packed.codes, packed[1:6]
    # Stamps change when a tensor is replaced or written to. Writing to the codes needs no new decoder.
    stamps = [codes.data_ptr(), *map(id, others)]
    for other in others:
        if other is not None:
            stamps += other.data_ptr(), 0 if other.is_inference() else other._version
    key = id(codes)
    entry = _decoders.get(key)
    if entry is not None and entry[2] == stamps and entry[0]() is codes:
        return entry[3]

    def forget(dead: ReferenceType[Tensor]) -> None:
        # Other codes may have the same id by now.
        if key in _decoders and _decoders[key][0] is dead:
            del _decoders[key]

    decoder = packed.to_table().decoder
    # Holding the other tensors keeps their ids from being reused.
    _decoders[key] = (ref(codes, forget), others, stamps, decoder)
    return decoder
