"""Derivatives and vmap rules of the operators, for autograd and the transforms of ``torch.func``.

``smallfry::linear`` and ``smallfry::linear_backward`` multiply by the table and by its transpose. Both are
linear maps: each is its own forward derivative, and the other's reverse derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction

from smallfry.nn.packed import Packed

_NO_DERIVATIVE = (
    "A packed table requires a gradient, but quantized values have none. Call requires_grad_(False) on its "
    "buffers, or quantize the float embedding after training."
)

Operator = Callable[..., Tensor]


def register_derivative(library: torch.library.Library, operator: Any, transposed: Operator) -> None:  # noqa: ANN401
    """Register ``operator(vectors, *packed)``, linear in ``vectors``, with autograd.

    `torch.library.register_autograd` does the same without forward derivatives, which would be 0, and
    without ``torch.func``.
    """

    def autograd(keys: Any, vectors: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
        def redispatch(vectors: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401
            product: Tensor = operator.redispatch(keys & torch._C._after_autograd_keyset, vectors, *parts)
            return product

        with enable_single_level_autograd_function():
            product: Tensor = _LinearMap.apply(  # type: ignore[attr-defined]
                redispatch, operator, transposed, vectors, *parts
            )
        return product

    library.impl(operator._opname, autograd, "Autograd", with_keyset=True)


class _LinearMap(_SingleLevelFunction):
    """A linear map under one transform of ``torch.func``; redispatching applies the next one."""

    @staticmethod
    def forward(redispatch: Operator, operator: Operator, transposed: Operator, *arguments: Any) -> Tensor:  # noqa: ANN401
        # The next transform is independent of this one, which has disabled gradients.
        with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad(), _set_fwd_grad_enabled(True):
            return redispatch(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        _, ctx.operator, ctx.transposed, _, *parts = inputs
        ctx.packed = Packed(*parts)
        refuse_gradient(ctx.packed)
        # Tangents of constants are None, not zeros.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        product = None if gradient is None else ctx.transposed(gradient, *ctx.packed)
        return None, None, None, product, *(None for _ in ctx.packed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:  # noqa: ANN401
        if any(tangent is not None for tangent in tangents[4:]):
            raise NotImplementedError(_NO_DERIVATIVE)
        tangent: Tensor = ctx.operator(tangents[3], *ctx.packed)
        return tangent


def register_vmap(
    library: torch.library.Library,
    operator: Any,  # noqa: ANN401
    *,
    batched_first: bool,
) -> None:
    """Register the vmap rule of ``operator``.

    With ``batched_first`` the first argument may have any number of leading dimensions; the batch dimension
    becomes one of them. Batches of other arguments, such as tables, are computed one at a time.
    """

    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        first, *others = dims
        if batched_first and first is not None and all(dim is None for dim in others):
            return operator(arguments[0].movedim(first, 0), *arguments[1:]), 0
        samples = [
            operator(
                *(a if dim is None else a.select(dim, index) for a, dim in zip(arguments, dims, strict=True))
            )
            for index in range(info.batch_size)
        ]
        return torch.stack(samples), 0

    torch.library.register_vmap(operator, rule, lib=library)


def refuse_gradient(packed: Packed) -> None:
    """Raise NotImplementedError for a table that requires a gradient."""
    for part in packed[:5]:
        if part is not None and part.requires_grad:
            raise NotImplementedError(_NO_DERIVATIVE)
