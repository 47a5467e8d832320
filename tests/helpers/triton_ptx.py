"""Compile the kernels for a GPU, without one, and print counts of their PTX instructions as JSON."""

import argparse
import json
import re
import sys
from collections import Counter

import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from smallfry.nn.kernels import paged_kernels, paged_launch, triton_kernels, triton_launch
from smallfry.nn.packed import Packed
from tests.helpers.tables import KINDS, random_table

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
WATCHED = re.compile(r"\b((?:ld|st)\.(?:global|shared)[\w.]*|bar\.sync|fma[\w.]*|div[\w.]*|cvt\.rn\.[\w.]*)")


class Compiler:
    """Stands in for a kernel: compiles what a launch would run."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.ptx = ""

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *arguments, num_warps, enable_fp_fusion, **constants):
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
        self.ptx = compile(source, target=HOPPER, options=options).asm["ptx"]


def instructions(kind, nbit, codebook, dim, dtype, parts):
    """Return the count of each memory and rounding instruction in the code of one lookup."""
    table = random_table(64, dim, nbit, codebook or KINDS[nbit][0], parts=parts)
    packed = Packed.from_table(table).astype(dtype)
    module = paged_kernels if kind == "paged" else triton_kernels
    name = {"paged": "gather_records", "gather": "gather_rows"}.get(kind, "pool_rows")
    stand_in = Compiler(getattr(module, name))
    setattr(module, name, stand_in)
    ids = torch.arange(40)
    try:
        if kind == "paged":
            paged, out = table.paged(), torch.empty(40, dim, dtype=dtype)
            decoding = paged_launch.Decoding.of(paged, ids.device)
            paged_launch.gather(ids, torch.from_numpy(paged.codes), decoding, out)
        elif kind == "gather":
            triton_launch.decode(ids, packed)
        else:
            triton_launch.bag(ids, torch.tensor([0, 20]), None, packed, kind, -1, False)
    finally:
        setattr(module, name, stand_in.kernel)
    return Counter(WATCHED.findall(stand_in.ptx))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    for kind, nbit, codebook, dim, dtype, parts in json.loads(parser.parse_args().cases):
        counts = instructions(kind, nbit, codebook, dim, getattr(torch, dtype), tuple(parts))
        sys.stdout.write(json.dumps(counts) + "\n")
