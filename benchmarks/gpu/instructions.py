"""Count the machine instructions of the kernels for an H200, without a GPU.

    python -m benchmarks.gpu.instructions

Prints instructions per value, and the share of each unit of a multiprocessor that they would occupy if the
kernel ran at the bandwidth of the memory. A kernel reaches 80 % of that bandwidth only if no share is much
above 100 %. Needs Triton 3.6 or newer. Latencies, caches and conflicts are not counted.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import torch
import triton

from benchmarks.gpu.compiled import compiled
from benchmarks.gpu.device import Gpu, named_bits
from benchmarks.gpu.paged import paged_table
from smallfry.nn.kernels import paged_launch, triton_launch

BYTES_PER_CLOCK = 4.3e12 / 132 / 1.98e9
"""90 % of the 4.8 TB/s of the datasheet of an H200, for each of 132 multiprocessors at 1.98 GHz."""

UNITS = {"issue": 128, "integer": 64, "multiply": 64, "load": 32}
"""Instructions of a thread per clock and multiprocessor (CUDA C++ Programming Guide, throughput)."""

ROWS = 64


def disassemble(cubin: bytes) -> str:
    """Return the machine code of a kernel as text."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
        return subprocess.run([tool, "-c", file.name], check=True, capture_output=True, text=True).stdout


def straight(code: str) -> list[str]:
    """Return the instructions of a gather, without the block that stores a tile that is not full."""
    blocks = re.split(r"^\.L_x_\d+:$|^.*\bEXIT\b.*$", code, flags=re.MULTILINE)
    return [name for block in blocks if not re.search(r"@!?U?P\w+\s+STG", block) for name in _names(block)]


def loop(code: str) -> list[str]:
    """Return the instructions of the longest loop."""
    bodies = re.findall(r"^(\.L_x_\d+):$(.*?)\bBRA\b[^;]*\1\b", code, flags=re.MULTILINE | re.DOTALL)
    return _names(max((body for _, body in bodies), key=len))


def _names(code: str) -> list[str]:
    names = re.findall(
        r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", code, flags=re.MULTILINE
    )
    return [name for name in names if name != "NOP"]


def unit(name: str) -> str:
    """Return the unit of `UNITS` that executes an instruction, or ``"other"``."""
    if name.startswith(("LDG", "STG", "LDS", "STS")):
        return "load"
    if name.startswith("IMAD"):
        return "multiply"
    return "other" if name.startswith(("FADD", "FMUL", "U", "B", "LDC", "S2", "EXIT")) else "integer"


def report(name: str, names: list[str], values: int, bytes_per_value: float) -> None:
    """Print instructions per value, and the share of each unit at the bandwidth of the memory."""
    counts = Counter(map(unit, names)) | {"issue": len(names)}
    clocks = bytes_per_value / BYTES_PER_CLOCK
    shares = (f"{counts[key] / values / UNITS[key] / clocks:8.0%}" for key in UNITS)
    print(f"{name:44}{len(names) / values:8.1f}{counts['integer'] / values:8.1f}" + "".join(shares))


def main() -> None:
    """Report on lookups of rows, on bags, and on records of paged tables."""
    gpu = Gpu(torch.device("cpu"), ROWS, (), 1)
    ids = torch.arange(ROWS)
    print(f"{'':44}{'all':>8}{'integer':>8}" + "".join(f"{name:>8}" for name in UNITS))
    for dim in (300, 4096):
        for dtype in (torch.float32, torch.bfloat16):
            for nbit, window in ((1, 1), (2, 2), (4, 4), (8, 8), (2, 8)):
                packed = gpu.table(ROWS, dim, nbit, dtype, window)
                code = compiled("gather_rows", lambda packed=packed: triton_launch.decode(ids, packed))
                name = f"rows of {dim}, {named_bits(nbit, window)}, {str(dtype)[6:]}"
                size = dtype.itemsize + nbit / 8 + 8 / dim
                report(name, straight(disassemble(code.asm["cubin"])), code.values, size)
    paged = paged_table(ROWS)
    decoding = paged_launch.Decoding.of(paged, gpu.device)
    out = torch.empty(ROWS, paged.dim, dtype=torch.bfloat16)
    records = torch.from_numpy(paged.codes)
    code = compiled("gather_records", lambda: paged_launch.gather(ids, records, decoding, out))
    name = f"records of {paged.dim}, {named_bits(paged.nbit, 8)}, bfloat16"
    size = 2 + paged.nbit / 8 + 10 / paged.dim
    report(name, straight(disassemble(code.asm["cubin"])), code.values, size)
    print("bags, at a quarter of the time in which the float32 rows can be read:")
    for dim in (300, 4096):
        for nbit in (1, 2, 4, 8):
            bag = (ids, torch.tensor([0, ROWS]), None, gpu.table(ROWS, dim, nbit), "sum", -1, False)
            code = compiled("pool_rows", lambda bag=bag: triton_launch.bag(*bag))
            steps = code.values * triton_launch._AHEAD
            report(f"bags of {dim}, {nbit} bits, float32", loop(disassemble(code.asm["cubin"])), steps, 1)


if __name__ == "__main__":
    main()
