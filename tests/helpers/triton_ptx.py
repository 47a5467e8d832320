"""Compile the kernels for a GPU, without one, and print counts of their instructions as JSON."""

import argparse
import json
import re
import sys
from collections import Counter

import torch

from benchmarks.gpu.compiled import compiled
from benchmarks.gpu.instructions import disassemble, straight, unit
from smallfry.nn.kernels import paged_launch, triton_launch
from smallfry.nn.packed import Packed
from tests.helpers.tables import KINDS, random_table

WATCHED = re.compile(r"\b((?:ld|st)\.(?:global|shared)[\w.]*|bar\.sync|fma[\w.]*|div[\w.]*|cvt\.rn\.[\w.]*)")


def instructions(kind, nbit, codebook, dim, dtype, parts):
    """Return the count of each memory and rounding instruction in the PTX of one lookup.

    ``"integer"`` is the number of integer instructions of the machine code for each value of the output.
    """
    table = random_table(64, dim, nbit, codebook or KINDS[nbit][0], parts=parts)
    packed = Packed.from_table(table).astype(dtype)
    ids = torch.arange(40)
    if kind == "paged":
        paged, out = table.paged(), torch.empty(40, dim, dtype=dtype)
        decoding = paged_launch.Decoding.of(paged, ids.device)
        records = torch.from_numpy(paged.codes)
        code = compiled("gather_records", lambda: paged_launch.gather(ids, records, decoding, out))
    elif kind == "gather":
        code = compiled("gather_rows", lambda: triton_launch.decode(ids, packed))
    else:
        bag = (ids, torch.tensor([0, 20]), None, packed, kind, -1, False)
        code = compiled("pool_rows", lambda: triton_launch.bag(*bag))
    units = Counter(map(unit, straight(disassemble(code.asm["cubin"]))))
    return Counter(WATCHED.findall(code.asm["ptx"])) | {"integer": units["integer"] / code.values}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    for kind, nbit, codebook, dim, dtype, parts in json.loads(parser.parse_args().cases):
        counts = instructions(kind, nbit, codebook, dim, getattr(torch, dtype), tuple(parts))
        sys.stdout.write(json.dumps(counts) + "\n")
