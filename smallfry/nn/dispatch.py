"""Which code looks up on CUDA: the Triton kernels, or plain torch where they cannot run."""

from __future__ import annotations

import logging
import os
from functools import cache
from types import ModuleType

import torch

from smallfry.nn import torch_impl
from smallfry.nn.packed import Packed

_logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def path(packed: Packed) -> ModuleType:
    """Return the module whose ``decode`` and ``bag`` look up in this table.

    `smallfry.nn.triton_launch` answers in float32, float16 and bfloat16; `smallfry.nn.torch_impl` takes the
    rest.
    """
    kernels = launcher() if packed.dtype in _DTYPES else None
    return torch_impl if kernels is None else kernels


@cache
def launcher() -> ModuleType | None:
    """Return `smallfry.nn.triton_launch`, or None with one warning in the log where Triton does not work."""
    try:
        import triton

        from smallfry.nn import triton_launch

        if os.environ.get("TRITON_INTERPRET") != "1":
            # Builds Triton's driver, which takes a C compiler.
            triton.runtime.driver.active.get_current_target()
    except Exception as error:
        _logger.warning(
            "lookups on the GPU take plain torch, which launches several kernels for each: Triton does not "
            "work here (%s: %s). It needs `pip install triton`, a C compiler and a GPU that it knows.",
            type(error).__name__,
            error,
        )
        return None
    return triton_launch
