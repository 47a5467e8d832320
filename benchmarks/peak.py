"""Memory that compressing takes, in a process of its own: prints its peak, and what it held before, in bytes.

``python benchmarks/peak.py tensor ROWS`` packs a float32 tensor of that many rows, ``peak.py text INPUT
OUTPUT`` compresses a file of vectors, both to 2 bits.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


def main(role: str, *arguments: str) -> None:
    """Do one of the two and print ``{"before": …, "peak": …, "made": …}``."""
    before, made = {"tensor": compress_tensor, "text": compress_text}[role](*arguments)
    print(json.dumps({"before": before, "peak": _memory("VmHWM"), "made": made}))


def compress_tensor(rows: str) -> tuple[int, int]:
    """Make a tensor and pack it; return the memory held between the two, and the bytes of the packed one."""
    from workload import Workload

    from smallfry import QuantEmbedding

    # The first use of torch and of the kernels costs memory that no table's size changes.
    small = Workload(1000, 1, 0.0, Path(), None).weight
    QuantEmbedding(*small.shape, _weight=small, nbit=2)
    weight = Workload(int(rows), 1, 0.0, Path(), None).weight
    # Making the tensor took more than it takes: that goes back, and the peak counts from here.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    module = QuantEmbedding(*weight.shape, _weight=weight, nbit=2)
    return before, module.nbytes


def compress_text(input: str, output: str) -> tuple[int, int]:
    """Run the command line; return nothing held before, and the bytes of the file."""
    from smallfry.cli import main as smallfry

    if smallfry(["compress", input, "-o", output, "--nbit", "2"]):
        raise SystemExit(f"{input} was not compressed")
    return 0, Path(output).stat().st_size


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {field}")


if __name__ == "__main__":
    main(*sys.argv[1:])
