"""Recognize embeddings that multiply their rows by ``embed_scale``, as those of Gemma 3 and BART do."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from smallfry.errors import InputError

# Minimum number of products in a comparison: in a few products, rounding the scale may change nothing.
_PRODUCTS = 4096


def customization(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Return what a module adds to the ``forward`` of ``kind``, None if nothing."""
    if type(module).forward is not kind.forward or "forward" in vars(module):
        return "has its own forward"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    return None


def refuse_customization(module: nn.Module, kind: type[nn.Module]) -> None:
    """Raise InputError if a module adds to the ``forward`` of ``kind``."""
    if custom := customization(module, kind):
        raise InputError(f"{type(module).__name__} {custom}, which a packed module would not run")


def scale_options(module: nn.Embedding) -> dict[str, Any]:
    """Return ``embed_scale`` and ``round_scale`` of a `QuantEmbedding` that does what ``module`` does.

    Raises
    ------
    InputError
        ``module`` has its own ``forward`` that does anything but scale the rows, or forward hooks.
    """
    found = _recognized(module)
    if found is None:
        refuse_customization(module, nn.Embedding)
    factor, rounded = found or (None, False)
    return {"embed_scale": factor, "round_scale": rounded}


def scaled(rows: Tensor, embed_scale: float, round_scale: bool) -> Tensor:
    """Return ``rows`` times ``embed_scale``, which is first rounded to their dtype if ``round_scale``."""
    return rows * (rows.new_full((), embed_scale) if round_scale else embed_scale)


def _recognized(module: nn.Embedding) -> tuple[float, bool] | None:
    """Return the scale of ``module``, and whether it is rounded; None if ``forward`` does not only scale.

    Tested by calling ``forward`` with a narrow table of the same number of rows in place of the weight.
    """
    stateless = not module._modules and list(module.state_dict()) == ["weight"]
    if not hasattr(module, "embed_scale") or not stateless or customization(module, type(module)):
        return None
    rows = module.num_embeddings
    columns = math.ceil(_PRODUCTS / max(rows, 1))
    values = torch.linspace(-1, 1, rows * columns, device="cpu").view(rows, columns)
    tables = values, values.bfloat16()
    try:
        factor = _factor(module)
        for rounded in (False, True):
            if all(_multiplies(module, table, factor, rounded) for table in tables):
                return factor, rounded
    except Exception:  # The class is unknown: anything may go wrong in its forward.
        return None
    return None


def _factor(module: nn.Module) -> float:
    """Return ``embed_scale``, a number or buffer; for a buffer on the meta device, transformers' number."""
    scale: Any = module.embed_scale
    if isinstance(scale, Tensor) and scale.is_meta:
        scale = torch.tensor(module.scalar_embed_scale, dtype=scale.dtype, device="cpu")
    return float(scale)


def _multiplies(module: nn.Module, table: Tensor, factor: float, rounded: bool) -> bool:
    """Return whether ``module`` with ``table`` for its weight returns the scaled rows, bit for bit."""
    tensors = {"weight": table}
    if (buffer := module._buffers.get("embed_scale")) is not None:
        tensors["embed_scale"] = torch.tensor(factor, dtype=buffer.dtype, device="cpu")
    with torch.no_grad():
        found = functional_call(module, tensors, (torch.arange(len(table), device="cpu"),))
    expected = scaled(table, factor, rounded)
    return found.dtype == expected.dtype and torch.equal(found, expected)
