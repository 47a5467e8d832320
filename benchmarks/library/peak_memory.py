"""Peak memory of compressing, measured in a separate process and printed as JSON, in bytes.

``python -m benchmarks.library.peak_memory tensor ROWS`` packs a float32 tensor of that many rows,
``… text INPUT OUTPUT`` compresses a file of vectors, both to 2 bits.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


def main(role: str, *arguments: str) -> None:
    """Compress and print ``{"before": …, "peak": …, "made": …}``."""
    before, made = {"tensor": compress_tensor, "text": compress_text}[role](*arguments)
    print(json.dumps({"before": before, "peak": _memory("VmHWM"), "made": made}))


def compress_tensor(rows: str) -> tuple[int, int]:
    """Pack a tensor; return the memory held before that, and the bytes of the packed one."""
    from benchmarks.library.workload import Workload
    from smallfry import QuantEmbedding

    # The first use of torch and of the kernels takes memory that does not depend on the table's size.
    small = Workload(1000, 1, 0.0, Path(), None).weight
    QuantEmbedding(*small.shape, _weight=small, nbit=2)
    weight = Workload(int(rows), 1, 0.0, Path(), None).weight
    # Making the tensor took more memory than the tensor: return it, and reset the peak.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    module = QuantEmbedding(*weight.shape, _weight=weight, nbit=2)
    return before, module.nbytes


def compress_text(input: str, output: str) -> tuple[int, int]:
    """Run the command line; return 0 bytes held before, and the bytes of the file."""
    from smallfry.cli import main as smallfry

    if smallfry(["compress", input, "-o", output, "--nbit", "2"]):
        raise SystemExit(f"{input} was not compressed")
    return 0, Path(output).stat().st_size


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not report {field}")


if __name__ == "__main__":
    main(*sys.argv[1:])
