"""The operators ``smallfry::decode``, ``smallfry::bag`` and ``smallfry::linear``.

They take the tensors of a packed table as separate arguments, as ``torch.compile`` and ``torch.export``
require. On CPU they run the native kernels; on CUDA, ``decode`` and ``bag`` run the Triton kernels of
`triton_launch`. Other devices run `torch_impl` unless a kernel is registered for their dispatch key::

    library.impl("decode", my_decode, "PrivateUse1")

Tables are constant: every operator raises NotImplementedError when a table requires a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd.forward_ad import unpack_dual
from torch.utils.flop_counter import register_flop_formula

from smallfry.nn.kernels import cpu, decompositions, dispatch, nested, products, torch_impl, transforms
from smallfry.nn.kernels.transforms import refuse_gradient
from smallfry.nn.packed import Packed

library = torch.library.Library("smallfry", "DEF")

_PACKED = (
    "Tensor codes, Tensor? codebook, Tensor? mean, Tensor? column_scale, Tensor? row_scale, "
    "Tensor? zero_rows, SymInt dim, int nbit"
)
library.define(f"decode(Tensor ids, {_PACKED}) -> Tensor")
library.define(
    f"bag(Tensor ids, Tensor? offsets, Tensor? weights, {_PACKED}, "
    "str mode, int padding_idx, bool include_last_offset) -> Tensor"
)
library.define(f"linear(Tensor input, {_PACKED}) -> Tensor")
library.define(f"linear_backward(Tensor gradient, {_PACKED}) -> Tensor")

_decode = torch.ops.smallfry.decode.default
_bag = torch.ops.smallfry.bag.default
_linear = torch.ops.smallfry.linear.default
_linear_backward = torch.ops.smallfry.linear_backward.default


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Return the rows at ``ids``, ``[*ids.shape, dim]``, in the table's dtype.

    An id out of range raises IndexError on CPU; on CUDA its row is NaN.
    """
    rows: Tensor = _decode(ids, *packed)
    return rows


def decode_all(packed: Packed) -> Tensor:
    """Return every row, ``[rows, dim]``."""
    return decode(row_numbers(packed), packed)


def row_numbers(packed: Packed) -> Tensor:
    """Return the ids of all rows, on the table's device."""
    return torch.arange(packed.rows, device=packed.codes.device)


def bag(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Packed,
    mode: str,
    padding_idx: int,
    include_last_offset: bool,
) -> Tensor:
    """Pool the rows at ``ids`` into bags, ``[bags, dim]``; on CPU in one pass over the codes.

    The bags are the rows of two-dimensional ``ids``, or one-dimensional ``ids`` cut by ``offsets``.
    ``padding_idx`` is -1 for none. An id out of range raises IndexError on CPU; on CUDA its bag is NaN.
    """
    if offsets is not None and not isinstance(offsets, Tensor):
        raise TypeError(
            f"offsets are a {type(offsets).__name__}, expected a tensor of torch.int64 or torch.int32"
        )
    _refuse_derivative(weights)
    pooled: Tensor = _bag(ids, offsets, weights, *packed, mode, padding_idx, include_last_offset)
    return pooled


def linear(input: Tensor, packed: Packed) -> Tensor:
    """Return ``input @ table.T``, ``[..., rows]``, decoding a chunk of rows at a time.

    The backward pass computes the gradient of ``input`` and decodes the rows again. Dtypes are those of
    `torch.nn.functional.linear`: RuntimeError unless both are equal, after autocast.
    """
    # torch.compile of torch 2.10 does not trace properties of named tuples.
    values = packed.codes if packed.codebook is None else packed.codebook
    dtype, kind = values.dtype, input.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        # Autocast leaves float64 and integers.
        lower = torch.get_autocast_dtype(kind)
        if input.is_floating_point() and input.dtype != torch.float64:
            input = input.to(lower)
        if dtype != torch.float64:
            dtype = lower
    if input.dtype != dtype:
        raise RuntimeError(
            f"the input is {input.dtype}, but the table is {dtype}. Please convert the input, or the module "
            "with .to(dtype)."
        )
    product: Tensor = _linear(input, *packed)
    return product


def _decode_cpu(ids: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401 - the fields of Packed
    packed = Packed(*parts)
    _check_decode(ids, packed)
    return cpu.decode(ids, packed)


def _decode_with(choose: Callable[[Packed], ModuleType], ids: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_decode(ids, packed)
    _check_devices(packed, ids)
    rows: Tensor = choose(packed).decode(ids, packed)
    return rows


def _decode_fake(ids: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_decode(ids, packed)
    _check_devices(packed, ids)
    return packed.codes.new_empty((*ids.shape, packed.dim), dtype=packed.dtype)


def _bag_cpu(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    packed, *options = _bag_arguments(ids, offsets, weights, rest)
    return cpu.bag(ids, offsets, weights, packed, *options)


def _bag_with(
    choose: Callable[[Packed], ModuleType],
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    packed, *options = _bag_arguments(ids, offsets, weights, rest)
    _check_devices(packed, ids, offsets, weights)
    pooled: Tensor = choose(packed).bag(ids, offsets, weights, packed, *options)
    return pooled


def _bag_fake(
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    packed, _, _, include_last_offset = _bag_arguments(ids, offsets, weights, rest)
    _check_devices(packed, ids, offsets, weights)
    bags = ids.shape[0] if offsets is None else offsets.shape[0] - include_last_offset
    return packed.codes.new_empty((bags, packed.dim), dtype=packed.dtype)


def _linear_any(input: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_vectors(input, packed, packed.dim)
    return products.linear(input, packed, decode)


def _linear_cpu(input: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_vectors(input, packed, packed.dim)
    return cpu.linear(input, packed)


def _linear_fake(input: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_vectors(input, packed, packed.dim)
    return input.new_empty((*input.shape[:-1], packed.codes.shape[0]))


def _linear_backward_any(gradient: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_vectors(gradient, packed, packed.rows)
    return products.linear_backward(gradient, packed, decode)


def _linear_backward_fake(gradient: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
    packed = Packed(*parts)
    _check_vectors(gradient, packed, packed.codes.shape[0])
    return gradient.new_empty((*gradient.shape[:-1], packed.dim))


def _linear_flops(vectors: list[int], codes: list[int], *rest: Any, **out: Any) -> int:  # noqa: ANN401
    """Return the operations of ``smallfry::linear`` or its backward, given shapes instead of tensors."""
    dim: int = rest[-2]
    return 2 * prod(vectors[:-1]) * codes[0] * dim


_decode_any = partial(_decode_with, lambda packed: torch_impl)
_decode_cuda = partial(_decode_with, dispatch.implementation)
_bag_any = partial(_bag_with, lambda packed: torch_impl)
_bag_cuda = partial(_bag_with, dispatch.implementation)

_ANY = "CompositeExplicitAutograd"
for _name, _kernels, _fake in (
    ("decode", {"CPU": _decode_cpu, "CUDA": _decode_cuda, _ANY: _decode_any}, _decode_fake),
    ("bag", {"CPU": _bag_cpu, "CUDA": _bag_cuda, _ANY: _bag_any}, _bag_fake),
    ("linear", {"CPU": _linear_cpu, _ANY: _linear_any}, _linear_fake),
    ("linear_backward", {_ANY: _linear_backward_any}, _linear_backward_fake),
):
    for _key, _kernel in _kernels.items():
        library.impl(_name, _kernel, _key)
    torch.library.register_fake(f"smallfry::{_name}", _fake, lib=library)
nested.register_decode(library, _decode)
transforms.register_derivative(library, _linear, _linear_backward)
transforms.register_derivative(library, _linear_backward, _linear)
transforms.register_vmap(library, _bag, batched_first=False)
for _operator in (_decode, _linear, _linear_backward):
    transforms.register_vmap(library, _operator, batched_first=True)
for _operator, _fake, _decomposition in (
    (_decode, _decode_fake, decompositions.decode),
    (_bag, _bag_fake, decompositions.bag),
    (_linear, _linear_fake, decompositions.linear),
):
    register_decomposition(_operator)(_decomposition)
    # Tracing with dynamic shapes prefers decompositions to fakes, unless they are in this table, too.
    register_decomposition(_operator, type="meta")(_fake)
register_flop_formula([torch.ops.smallfry.linear, torch.ops.smallfry.linear_backward])(_linear_flops)


def _refuse_derivative(weights: Tensor | None) -> None:
    if weights is None:
        return
    if (weights.requires_grad and torch.is_grad_enabled()) or unpack_dual(weights).tangent is not None:
        raise NotImplementedError(
            "per_sample_weights require a gradient, which a packed bag does not compute. "
            "Detach them, or multiply the rows of a QuantEmbedding by them."
        )


def _check_decode(ids: Tensor, packed: Packed) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids are {ids.dtype}, expected torch.int64 or torch.int32")
    refuse_gradient(packed)


def _bag_arguments(
    ids: Tensor, offsets: Tensor | None, weights: Tensor | None, rest: tuple[Any, ...]
) -> tuple[Packed, Any, int, bool]:
    """Check the arguments of ``smallfry::bag``; return the table, mode, padding_idx, include_last_offset."""
    *parts, mode, padding_idx, include_last_offset = rest
    packed = Packed(*parts)
    _check_decode(ids, packed)
    if offsets is not None and offsets.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"offsets are {offsets.dtype}, expected torch.int64 or torch.int32")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode is {mode!r}, expected 'sum', 'mean' or 'max'")
    # The operator of an exported program is called directly; the tensors of torch.func are unwrapped here.
    _refuse_derivative(weights)
    return packed, mode, padding_idx, include_last_offset


def _check_vectors(vectors: Tensor, packed: Packed, size: int) -> None:
    """Check the argument that ``smallfry::linear`` or ``smallfry::linear_backward`` multiplies."""
    if not vectors.is_floating_point():
        raise RuntimeError(f"the input is {vectors.dtype}, but the table is {packed.dtype}")
    if vectors.ndim == 0 or vectors.shape[-1] != size:
        raise RuntimeError(
            f"the input has shape {list(vectors.shape)}, expected {size} values in its last axis"
        )
    _check_devices(packed, vectors)


def _check_devices(packed: Packed, *others: Tensor | None) -> None:
    """Raise RuntimeError unless all tensors are on one device; kernels for CPU need no check."""
    device = packed.codes.device
    for tensor in (*packed[1:6], *others):
        if tensor is not None and tensor.device != device:
            raise RuntimeError(
                f"the table is on {device}, but a tensor of the lookup is on {tensor.device}. Please move "
                "the input to the table's device, or the module with .to(device). A table on meta has no "
                "values: load them with load_state_dict(…, assign=True)."
            )
