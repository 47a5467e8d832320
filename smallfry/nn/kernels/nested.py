"""``smallfry::decode`` of nested ids: the rows have the same nesting, as those of `torch.nn.Embedding`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nested._internal.nested_tensor import NestedTensor
from torch.nested._internal.ops import extract_kwargs


def register_decode(library: torch.library.Library, decode: Any) -> None:  # noqa: ANN401 - an OpOverload
    """Register the kernels for ids of both layouts."""

    def strided(ids: Tensor, *parts: Any) -> Tensor:  # noqa: ANN401 - the fields of Packed
        return torch.nested.as_nested_tensor([decode(part, *parts) for part in ids.unbind()])

    def jagged(cls: object, func: object, types: object, args: tuple[Any, ...], kwargs: object) -> Tensor:
        ids, *parts = args
        return NestedTensor(decode(ids._values, *parts), **extract_kwargs(ids))

    for device in ("CPU", "CUDA"):
        library.impl("decode", strided, f"NestedTensor{device}")
    # Jagged ids have this key too.
    library.impl("decode", torch.library.fallthrough_kernel, "AutogradNestedTensor")
    torch.library.register_torch_dispatch(decode, NestedTensor, jagged, lib=library)
