"""Lookup on CUDA: the Triton kernels launched over the tensors of a packed table."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from smallfry.nn import triton_kernels as kernels
from smallfry.nn.packed import Packed

# Bytes that a thread writes at once.
_STORE_BYTES = 16
_WARPS = 4
# Stores of each thread of a gather: as many independent loads are in flight.
_STORES = 4
# Rows of a bag that are loaded at once.
_AHEAD = 4

# codebook → (its version, whether its values are evenly spaced).
_even: WeakIdKeyDictionary = WeakIdKeyDictionary()


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Return the rows of ``ids``, as `smallfry.nn.torch_impl.decode` does, in one launch.

    The bits are those of the CPU kernels. An id outside the table gives a row of NaN: nothing is read outside
    of it, and neither the program nor the device stops.
    """
    _check_devices(packed, ids)
    flat = ids.reshape(-1).contiguous()
    out = packed.codes.new_empty((*ids.shape, packed.dim), dtype=packed.dtype)
    if out.numel() == 0:
        return out
    constants = _constants(packed, out.dtype)
    groups = 32 * _WARPS * _STORES * _STORE_BYTES // out.element_size() // constants["H"]
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
            num_warps=_WARPS,
            enable_fp_fusion=False,
        )
    return out


def bag(
    ids: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    packed: Packed,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool the rows of ``ids`` into bags, as `smallfry.nn.torch_impl.bag` does, in one launch.

    Rows are added up in float32 in the order of the ids, as the CPU kernels do. An id outside the table makes
    its bag NaN; offsets outside the ids are brought inside.
    """
    _check_devices(packed, ids, offsets, weights)
    bags = len(offsets) - include_last_offset
    out = packed.codes.new_empty((bags, packed.dim), dtype=packed.dtype)
    if out.numel() == 0:
        return out
    constants = _constants(packed, out.dtype)
    groups = max(1, 32 * _WARPS * _STORE_BYTES // out.element_size() // constants["H"])
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
            num_warps=_WARPS,
            enable_fp_fusion=False,
        )
    return out


def _constants(packed: Packed, dtype: torch.dtype) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    dim, nbit = packed.dim, packed.nbit
    group = math.gcd(dim, _STORE_BYTES // dtype.itemsize)
    stride = packed.codes.shape[1]
    if nbit >= 8:
        unit = packed.codes.element_size() if nbit == 32 else nbit // 8
    else:
        # Rows follow each other without padding, so the widest load is one that divides them.
        unit = math.gcd(4, stride, max(1, group * nbit // 8), packed.codes.data_ptr())
    zero_count = 0 if packed.zero_rows is None else len(packed.zero_rows)
    return {
        "DIM": dim,
        "NBIT": nbit,
        "H": group,
        "UNIT": unit,
        "STRIDE": stride // unit,
        "GROUPED": packed.codebook is not None and packed.codebook.ndim == 2,
        "STEPS": zero_count.bit_length(),
    }


def _parts(packed: Packed, unit: int) -> tuple[Any, ...]:
    """Return the table as the kernels take it, codes in units of so many bytes."""
    codes = packed.codes.detach().contiguous()
    if codes.data_ptr() % unit:
        codes = codes.clone()
    if packed.codebook is not None and unit > 1:
        codes = codes.view(torch.int16 if unit == 2 else torch.int32)
    codebook, mean, row_scale, zero_rows = (
        None if part is None or not part.numel() else part.detach().contiguous() for part in packed[1:5]
    )
    zero_count = 0 if zero_rows is None else len(zero_rows)
    even = packed.nbit == 16 and _is_even(packed.codebook)
    return codes, codebook, mean, row_scale, zero_rows, zero_count, int(even)


def _is_even(codebook: Tensor | None) -> bool:
    """Say whether a 16-bit codebook is ``(k - 32767.5) * step``, bit for bit.

    It is then computed, not loaded. The first call for a codebook waits for the device. While a graph is
    being captured nothing may wait, and what is loaded into the codebook later would not be seen: there the
    answer is no.
    """
    if codebook is None or codebook.dtype != torch.float32 or codebook.is_inference():
        return False
    if codebook.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    known = _even.get(codebook)
    if known is None or known[0] != codebook._version:
        levels = torch.arange(1 << 16, device=codebook.device, dtype=torch.float32) - 32767.5
        known = _even[codebook] = (codebook._version, torch.equal(levels * (codebook[1 << 15] * 2), codebook))
    even: bool = known[1]
    return even


def _check_devices(packed: Packed, *others: Tensor | None) -> None:
    wanted = packed.codes.device
    tensors = [*packed[1:5], *others]
    for tensor in tensors:
        if tensor is not None and tensor.device != wanted:
            raise RuntimeError(
                f"the table is on {wanted}, but a tensor of the lookup is on {tensor.device}. "
                "Please move the ids to the table's device, or the module with .to(device)."
            )


def _on_device(packed: Packed) -> AbstractContextManager[Any]:
    """Launch on the table's device where it is not the current one."""
    codes = packed.codes
    return torch.cuda.device(codes.device) if codes.is_cuda else nullcontext()
