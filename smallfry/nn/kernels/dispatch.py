"""Choose the implementation of CUDA lookups: Triton kernels, or plain torch where they do not work."""

from __future__ import annotations

import logging
import os
from functools import cache
from types import ModuleType

import torch

from smallfry.nn.kernels import torch_impl
from smallfry.nn.packed import Packed

_logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def implementation(packed: Packed) -> ModuleType:
    """Return the module whose ``decode`` and ``bag`` look up in this table."""
    kernels = triton_module() if packed.dtype in _DTYPES else None
    return torch_impl if kernels is None else kernels


@cache
def triton_module() -> ModuleType | None:
    """Return the `triton_launch` module; if Triton does not work, log one warning and return None."""
    try:
        import triton

        from smallfry.nn.kernels import triton_launch

        if os.environ.get("TRITON_INTERPRET") != "1":
            # Builds Triton's driver, which needs a C compiler.
            triton.runtime.driver.active.get_current_target()
    except Exception as error:
        _logger.warning(
            "GPU lookups use plain torch, which launches several kernels for each lookup: Triton does not "
            "work here (%s: %s). It needs `pip install triton`, a C compiler and a supported GPU.",
            type(error).__name__,
            error,
        )
        return None
    return triton_launch
