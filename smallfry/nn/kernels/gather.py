"""The operators ``smallfry::gather`` and ``smallfry::gather_out``: rows of an open file, by its path.

A file is a constant of a compiled or exported program. It is opened when a program first gathers from it, in
every process, and must still have the digest. The operators are opaque to compilers, and splitting points of
CUDA graphs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smallfry.nn.kernels.operators import library
from smallfry.nn.kernels.transforms import register_vmap
from smallfry.nn.stores import find

_TAGS = (torch.Tag.cudagraph_unsafe,)
library.define(
    "gather(Tensor ids, str path, str digest, SymInt dim, ScalarType dtype, Device device) -> Tensor",
    tags=_TAGS,
)
library.define("gather_out(Tensor ids, str path, str digest, Tensor(a!) out) -> ()", tags=_TAGS)

gather = torch.ops.smallfry.gather.default
"""Return the rows at ``ids``, ``[*ids.shape, dim]``, on ``device``; see `smallfry.Store.gather`."""

gather_out = torch.ops.smallfry.gather_out.default
"""Write the rows at ``ids`` to ``out``."""


def _gather(
    ids: Tensor, path: str, digest: str, dim: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    shape = *ids.shape, dim
    if device.type == "cpu":
        # NumPy allocates large arrays in huge pages; page faults of torch's would take half the time.
        out = torch.from_numpy(np.empty(shape, f"i{dtype.itemsize}")).view(dtype)
    else:
        out = torch.empty(shape, dtype=dtype, device=device)
    _gather_out(ids, path, digest, out)
    return out


def _gather_out(ids: Tensor, path: str, digest: str, out: Tensor) -> None:
    _check(ids)
    if not out.is_meta:
        find(path, digest).gather(ids.contiguous(), out)


def _gather_fake(
    ids: Tensor, path: str, digest: str, dim: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    _check(ids)
    return ids.new_empty((*ids.shape, dim), dtype=dtype, device="meta" if ids.is_meta else device)


def _gather_out_fake(ids: Tensor, path: str, digest: str, out: Tensor) -> None:
    _check(ids)


def _check(ids: Tensor) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids are {ids.dtype}, expected torch.int64 or torch.int32")


for _name, _kernel, _fake in (
    ("gather", _gather, _gather_fake),
    ("gather_out", _gather_out, _gather_out_fake),
):
    library.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"smallfry::{_name}", _fake, lib=library)
register_vmap(library, gather, batched_first=True)
