"""Compile the kernels for an H100 or H200, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from smallfry.nn.kernels import paged_kernels, triton_kernels

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Compiled:
    """Stands in for a kernel: compiles what a launch would run.

    Attributes
    ----------
    asm : dict
        The code in each of Triton's formats, such as ``ptx`` and ``cubin``.
    values : int
        Values of the output that a thread writes.
    """

    def __init__(self, kernel: Any) -> None:  # noqa: ANN401 - Triton has no types
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._launch

    def _launch(self, *arguments: Any, num_warps: int, enable_fp_fusion: bool, **constants: Any) -> None:  # noqa: ANN401
        self.values = constants["GROUPS"] * constants["H"] // (32 * num_warps)
        signature, attributes = {}, {}
        for position, (name, value) in enumerate(zip(self.kernel.arg_names, arguments, strict=False)):
            if value is None:
                constants[name] = value
            elif isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
                attributes[(position,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "i32"
        signature = {name: signature.get(name, "constexpr") for name in self.kernel.arg_names}
        options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
        source = ASTSource(self.kernel, signature, constants, attributes)
        self.asm = compile(source, target=HOPPER, options=options).asm


def compiled(name: str, launch: Callable[[], object]) -> Compiled:
    """Return the code of the kernel of this name, which ``launch`` launches."""
    module = paged_kernels if name == "gather_records" else triton_kernels
    stand_in = Compiled(getattr(module, name))
    setattr(module, name, stand_in)
    try:
        launch()
    finally:
        setattr(module, name, stand_in.kernel)
    return stand_in
