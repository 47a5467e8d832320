"""Lookup on CUDA: launch the Triton kernels on the tensors of a packed table."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from smallfry.nn.kernels import torch_impl
from smallfry.nn.kernels import triton_kernels as kernels
from smallfry.nn.packed import Packed

# Bytes per store of a thread.
STORE_BYTES = 16
WARPS = 4
# Stores per thread of a gather, and thus independent loads in flight.
STORES = 4
# Values of a bag per thread, at most, and rows of a bag loaded at once.
_POOLED = 8
_AHEAD = 4

# Codebook → (its version, whether its values are evenly spaced).
_even: WeakIdKeyDictionary = WeakIdKeyDictionary()


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Return the rows at ``ids`` as `smallfry.nn.kernels.torch_impl.decode` does, in one launch.

    The output is bit-identical to that of the CPU kernels. An id out of range yields a row of NaN, without an
    out-of-bounds read.
    """
    flat = ids.reshape(-1).contiguous()
    out = packed.codes.new_empty((*ids.shape, packed.dim), dtype=packed.dtype)
    if out.numel() == 0:
        return out
    constants = _constants(packed, STORE_BYTES // out.element_size())
    groups = 32 * WARPS * STORES * STORE_BYTES // out.element_size() // constants["H"]
    grid = (-(-out.numel() // (groups * constants["H"])),)
    with _on_device(packed):
        kernels.gather_rows[grid](
            out,
            flat,
            flat.numel(),
            out.numel(),
            packed.rows,
            *_parts(packed, constants["UNIT"]),
            **constants,
            GROUPS=groups,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    return out


def bag(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Packed,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool the rows at ``ids`` into bags as `smallfry.nn.kernels.torch_impl.bag` does, in one launch.

    Rows are summed in float32 in the order of the ids, as by the CPU kernels. An id out of range makes its
    bag NaN; offsets are clamped to the ids.
    """
    ids, offsets, weights, include_last_offset = torch_impl.with_offsets(
        ids, offsets, weights, include_last_offset
    )
    bags = len(offsets) - include_last_offset
    out = packed.codes.new_empty((bags, packed.dim), dtype=packed.dtype)
    if out.numel() == 0:
        return out
    constants = _constants(packed, _POOLED)
    groups = 32 * WARPS * max(1, STORE_BYTES // out.element_size() // constants["H"])
    grid = (-(-out.numel() // (groups * constants["H"])),)
    with _on_device(packed):
        kernels.pool_rows[grid](
            out,
            ids.contiguous(),
            offsets.contiguous(),
            None if weights is None else weights.detach().contiguous(),
            len(ids),
            bags,
            out.numel(),
            padding_idx,
            packed.rows,
            *_parts(packed, constants["UNIT"]),
            **constants,
            GROUPS=groups,
            MODE=mode,
            PADDED=padding_idx >= 0,
            ENDED=include_last_offset,
            AHEAD=_AHEAD,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    return out


def _constants(packed: Packed, most: int) -> dict[str, Any]:
    """Return the compile-time constants of a kernel whose groups have at most ``most`` values."""
    dim, nbit = packed.dim, packed.nbit
    group = math.gcd(dim, most)
    width = nbit if packed.codebook is None else len(packed.codebook).bit_length() - 1
    if width > nbit:
        unit = 1
    elif nbit >= 8:
        unit = packed.codes.element_size() if nbit == 32 else nbit // 8
    else:
        # Rows are not padded, so the unit of a load must divide the stride.
        unit = math.gcd(4, packed.codes.shape[1], max(1, group * nbit // 8), packed.codes.data_ptr())
    zero_count = 0 if packed.zero_rows is None else len(packed.zero_rows)
    return {
        "DIM": dim,
        "NBIT": nbit,
        "WIDTH": width,
        "H": group,
        "UNIT": unit,
        "STEPS": zero_count.bit_length(),
    }


def _parts(packed: Packed, unit: int) -> tuple[Any, ...]:
    """Return the table as kernel arguments, with codes in units of ``unit`` bytes."""
    codes = packed.codes.detach().contiguous()
    if codes.data_ptr() % unit:
        codes = codes.clone()
    if packed.codebook is not None and unit > 1:
        codes = codes.view(torch.int16 if unit == 2 else torch.int32)
    codebook, mean, column_scale, row_scale, zero_rows = (
        None if part is None or not part.numel() else part.detach().contiguous() for part in packed[1:6]
    )
    zero_count = 0 if zero_rows is None else len(zero_rows)
    even = packed.nbit == 16 and _is_even(packed.codebook)
    return codes, codebook, mean, column_scale, row_scale, zero_rows, zero_count, int(even)


def _is_even(codebook: Tensor | None) -> bool:
    """Return whether a 16-bit codebook is ``(k - 32767.5) * step``, bit for bit.

    Such values are computed, not loaded. The first call for a codebook synchronizes with the device. During
    graph capture the result is False: synchronization is not allowed, and the codebook may change later.
    """
    if codebook is None or codebook.dtype != torch.float32 or codebook.is_inference():
        return False
    if codebook.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    entry = _even.get(codebook)
    if entry is None or entry[0] != codebook._version:
        levels = torch.arange(1 << 16, device=codebook.device, dtype=torch.float32) - 32767.5
        entry = _even[codebook] = (codebook._version, torch.equal(levels * (codebook[1 << 15] * 2), codebook))
    even: bool = entry[1]
    return even


def _on_device(packed: Packed) -> AbstractContextManager[Any]:
    """Make the table's device the current one."""
    codes = packed.codes
    return torch.cuda.device(codes.device) if codes.is_cuda else nullcontext()
