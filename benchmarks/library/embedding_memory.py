"""Memory of a 400,000 × 300 embedding before and after compression, in one process and in ten.

    python -m benchmarks.library.embedding_memory [--rows 400000 --dim 300 --nbit 2 --processes 10]

Every process imports torch, makes a model, and looks up all rows once in batches of 1,000.

Printed are the bytes of parameters and buffers, and the proportional set size (PSS), which divides a page by
the number of processes that map it. Most of PSS is torch's libraries, whose part decreases with every other
process that uses them; so anonymous memory and that of the table's file are printed as well. "torch alone"
makes no model.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.common.processes import ROOT, module, pss
from smallfry.compress import quantize
from smallfry.sfq import file as sfq


def main() -> None:
    """Measure each kind of process and print one line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--nbit", type=int, default=2)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.file = str(Path(folder) / "table.sfq")
        matrix = np.random.default_rng(0).standard_normal((options.rows, options.dim), np.float32)
        sfq.write(options.file, quantize(matrix, options.nbit))
        del matrix
        print(f"{options.rows:,} × {options.dim} at {options.nbit} bits")
        print(f"{'':44} {'buffers':>12} {'PSS':>12} {'anonymous':>12} {'of the file':>12}")
        for role, name in (
            ("nothing", "torch alone"),
            ("float", "nn.Embedding"),
            ("replaced", "nn.Embedding after quantize_embed"),
            ("mapped", "QuantEmbedding.from_sfq"),
        ):
            print(line(name, measure(options, role, 1)))
        for role, name in (
            ("nothing", "torch alone"),
            ("float", "nn.Embedding"),
            ("mapped", "QuantEmbedding.from_sfq"),
        ):
            print(line(f"{options.processes} processes, {name}", measure(options, role, options.processes)))


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: the model's tensors; PSS; of that, anonymous memory and the table's file."""

    table: int
    pss: int
    anonymous: int
    file: int


def line(name: str, parts: list[Memory]) -> str:
    """Return one line with the sums over processes."""
    sums = (sum(getattr(part, field.name) for part in parts) for field in fields(Memory))
    return f"{name:44} " + " ".join(f"{count / 1e6:9,.1f} MB" for count in sums)


def measure(options: argparse.Namespace, role: str, count: int) -> list[Memory]:
    """Run processes at the same time; return the memory of each, once all are ready."""
    command = module("benchmarks.library.embedding_memory", "--role", role, "--file", options.file)
    command += ["--rows", str(options.rows), "--dim", str(options.dim), "--nbit", str(options.nbit)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        tables = [int(process.stdout.readline()) for process in running if process.stdout]
        return [
            read(process.pid, table, options.file) for table, process in zip(tables, running, strict=True)
        ]
    finally:
        for process in running:
            process.communicate()


def read(pid: int, table: int, file: str) -> Memory:
    """Return the memory of a process."""
    anonymous = mapped = 0
    path = ""
    for entry in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = entry.split()
        if "-" in name:
            path = values[-1] if len(values) == 5 else ""
        elif name == "Pss:":
            mapped += int(values[0]) * 1024 * (path == file)
            anonymous += int(values[0]) * 1024 * (not path.startswith("/"))
    return Memory(table, pss(pid), anonymous, mapped)


def play(options: argparse.Namespace) -> None:
    """Make the model of a role, use it, print its bytes, and wait for the end of standard input."""
    import torch

    from smallfry.nn import QuantEmbedding, quantize_embed

    torch.set_num_threads(1)
    model = torch.nn.Sequential()
    if options.role == "mapped":
        model.append(QuantEmbedding.from_sfq(options.file))
    elif options.role != "nothing":
        model.append(torch.nn.Embedding(options.rows, options.dim))
    if options.role == "replaced":
        quantize_embed(model, options.nbit)
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
    with torch.no_grad():
        for ids in torch.arange(options.rows).split(1000):
            model(ids)
    print(sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
