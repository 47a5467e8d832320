"""Benchmark lookups on a GPU: the kernels against memory bandwidth, torch and the original; the server.

    python -m benchmarks.gpu.run --out gpu.json

Needs torch for CUDA and Triton, takes under 5 minutes, and does not need smallfry to be installed. The server
part is skipped with a message if packages of ``smallfry[server]`` are missing. ``--smoke`` runs every part at
tiny sizes in Triton's interpreter, without a GPU; it checks that the program works, its times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.original import load_original
from benchmarks.common.processes import module
from benchmarks.gpu.device import FLUSH_BYTES, Gpu, Row, named_bits
from benchmarks.gpu.paged import paged_gathers
from smallfry.nn.kernels import operators, triton_launch
from smallfry.nn.packed import Packed

WINDOWS = (*((nbit, nbit) for nbit in (1, 2, 4, 8, 16, 32)), *((nbit, 8) for nbit in (1, 2, 3, 4)), (2, 12))
"""Bits per value, and bits that a value depends on: more in trellis codes."""

DTYPES = (torch.float32, torch.float16)
BOUND_TARGET = 0.8
FLOAT_TARGETS = {1: 1.6, 2: 1.6, 3: 1.6, 4: 1.6}
BAG_TARGET = 4.0
ORIGINAL_TARGET = 20.0
BAG = 20


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Look up as a module on this device does; on a CPU, run the Triton kernels in the interpreter."""
    return operators.decode(ids, packed) if ids.is_cuda else triton_launch.decode(ids, packed)


def bag(ids: Tensor, offsets: Tensor, packed: Packed) -> Tensor:
    """Sum bags as a module on this device does."""
    arguments = (ids, offsets, None, packed, "sum", -1, False)
    return operators.bag(*arguments) if ids.is_cuda else triton_launch.bag(*arguments)


def measure_bandwidth(gpu: Gpu) -> float:
    """Return the memory bandwidth of a copy on the GPU, in bytes per second, reads and writes together."""
    source = torch.empty(1 << (30 if gpu.device.type == "cuda" else 16), dtype=torch.uint8, device=gpu.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / gpu.time(lambda: target.copy_(source))


def lookups(gpu: Gpu, bandwidth: float) -> Iterator[Row]:
    """Look up at each bit width, against the bandwidth bound and torch's float32 table."""
    for rows, dim in gpu.sizes:
        ids = gpu.ids(rows, gpu.lookups)
        weight = gpu.table(rows, dim, 32).codes
        plain = gpu.time(lambda ids=ids, weight=weight: F.embedding(ids, weight))
        yield Row(f"F.embedding, float32, {dim} dimensions", plain)
        del weight
        for dtype in DTYPES:
            for nbit, window in WINDOWS:
                packed = gpu.table(rows, dim, nbit, dtype, window)
                took = gpu.time(lambda ids=ids, packed=packed: decode(ids, packed))
                moved = ids.nbytes + len(ids) * packed.codes[0].nbytes + len(ids) * dim * dtype.itemsize
                name = f"lookup, {named_bits(nbit, window)}, {dim} dimensions, {str(dtype)[6:]}"
                bound = moved / bandwidth
                yield Row(name, took, f"the bound of {bound * 1e3:.3f} ms", bound / took, BOUND_TARGET)
                if dtype == torch.float32 and nbit < 32:
                    yield Row(name, took, "F.embedding", plain / took, FLOAT_TARGETS.get(nbit))
                del packed


def bags(gpu: Gpu) -> Iterator[Row]:
    """Sum bags of 20 rows, against torch's `embedding_bag` over a float32 table."""
    for rows, dim in gpu.sizes:
        ids = gpu.ids(rows, gpu.lookups // BAG * BAG)
        offsets = torch.arange(0, len(ids), BAG, device=gpu.device)
        weight = gpu.table(rows, dim, 32).codes
        plain = gpu.time(
            lambda ids=ids, offsets=offsets, weight=weight: F.embedding_bag(ids, weight, offsets, mode="sum")
        )
        yield Row(f"F.embedding_bag, float32, {dim} dimensions", plain)
        del weight
        for nbit, window in WINDOWS:
            if nbit == 32:
                continue
            packed = gpu.table(rows, dim, nbit, window=window)
            took = gpu.time(lambda ids=ids, offsets=offsets, packed=packed: bag(ids, offsets, packed))
            target = BAG_TARGET if nbit <= 4 else None
            name = f"bags of {BAG}, {named_bits(nbit, window)}, {dim} dimensions"
            yield Row(name, took, "F.embedding_bag", plain / took, target)


def against_original(gpu: Gpu, checkout: Path | None) -> Iterator[Row]:
    """Look up against the original, which gathers int64 words, unpacks them to int64, then gathers levels."""
    rows, dim = gpu.sizes[0]
    ids = gpu.ids(rows, max(1, gpu.lookups // 8))
    baseline = "the original" if checkout else "the original's forward, restated"
    for nbit in (1, 2, 4, 8):
        packed = gpu.table(rows, dim, nbit)
        assert packed.codebook is not None
        if checkout is None:
            forward = _original(gpu, rows, dim, nbit, packed.codebook)
        else:
            weight = packed.codebook[torch.randint(0, 2**nbit, (1000, dim), device=gpu.device)].cpu()
            module = load_original(checkout)(1000, dim, _weight=weight, nbit=nbit).to(gpu.device)
            words = torch.randint(-(2**62), 2**62, (rows, module.weight.shape[1]), device=gpu.device)
            module.weight = torch.nn.Parameter(words, requires_grad=False)
            forward = module.forward
        theirs = gpu.time(lambda forward=forward: forward(ids))
        took = gpu.time(lambda packed=packed: decode(ids, packed))
        name = f"{len(ids)} lookups, {nbit} bits, {dim} dimensions"
        yield Row(name, took, baseline, theirs / took, ORIGINAL_TARGET)


def _original(gpu: Gpu, rows: int, dim: int, nbit: int, values: Tensor) -> Callable[[Tensor], Tensor]:
    each = 64 // nbit
    words = torch.randint(-(2**62), 2**62, (rows, -(-dim // each)), device=gpu.device)

    def forward(ids: Tensor) -> Tensor:
        packed = F.embedding(ids, words)
        codes = torch.zeros(len(ids), packed.shape[1] * each, dtype=torch.int64, device=gpu.device)
        for position in range(each):
            codes[:, position::each] = (packed >> (each - position - 1) * nbit) & (2**nbit - 1)
        return values[codes[:, :dim].contiguous()]

    return forward


def small_calls(gpu: Gpu) -> Iterator[Row]:
    """Look up a few rows, where call overhead dominates: in a loop, and inside a CUDA graph."""
    rows, dim = gpu.sizes[0]
    packed = gpu.table(rows, dim, 2)
    weight = gpu.table(rows, dim, 32).codes
    for count in (1, 1024):
        ids = gpu.ids(rows, count)
        calls = {
            "F.embedding": lambda ids=ids: F.embedding(ids, weight),
            "lookup": lambda ids=ids: decode(ids, packed),
        }
        for name, call in calls.items():
            call()
            started = time.perf_counter()
            for _ in range(gpu.rounds):
                call()
            if gpu.device.type == "cuda":
                torch.cuda.synchronize()
            yield Row(f"{name} of {count} rows, in a loop", (time.perf_counter() - started) / gpu.rounds)
        if gpu.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                decode(ids, packed)
            yield Row(f"lookup of {count} rows in a CUDA graph", gpu.time(graph.replay))


def launches(gpu: Gpu) -> Iterator[Row]:
    """Try launch constants other than the chosen ones, which may not be the best on this GPU."""
    chosen = triton_launch.STORES, triton_launch.WARPS, triton_launch._AHEAD
    rows, dim = gpu.sizes[0]
    packed, ids = gpu.table(rows, dim, 2), gpu.ids(rows, gpu.lookups)
    offsets = torch.arange(0, len(ids), BAG, device=gpu.device)
    for stores, warps in ((1, 4), (2, 4), (4, 4), (8, 4), (4, 8)):
        triton_launch.STORES, triton_launch.WARPS = stores, warps
        yield Row(f"lookup, {stores} stores a thread, {warps} warps", gpu.time(lambda: decode(ids, packed)))
    triton_launch.STORES, triton_launch.WARPS, _ = chosen
    for ahead in (1, 2, 4, 8):
        triton_launch._AHEAD = ahead
        yield Row(f"bags, {ahead} rows ahead", gpu.time(lambda: bag(ids, offsets, packed)))
    triton_launch.STORES, triton_launch.WARPS, triton_launch._AHEAD = chosen


def _gpu(smoke: bool) -> Gpu:
    if smoke:
        return Gpu(torch.device("cpu"), 64, ((50, 12), (20, 64)), 1)
    sizes = ((400_000, 300), (1 << 17, 4096))
    rows, dim = sizes[-1]
    # A float32 table, the temporary it is made from, and the flush buffer.
    free = torch.cuda.mem_get_info()[0] - 2 * 4 * rows * dim - FLUSH_BYTES
    if free < 1 << 30:
        raise SystemExit("6.5 GB of free GPU memory are needed")
    # A result of 4,096 dimensions, torch's own, and what the allocator keeps.
    lookups = 1 << min(20, int(math.log2(free / (3.5 * 4 * dim))))
    return Gpu(torch.device("cuda"), lookups, sizes, 20)


def _machine(gpu: Gpu) -> str:
    if gpu.device.type == "cpu":
        return "CPU, Triton's interpreter: the times mean nothing"
    import triton

    name = torch.cuda.get_device_name()
    return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, Triton {triton.__version__}"


def main(arguments: Sequence[str]) -> None:
    """Measure, print and, with ``--out``, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="a checkout of HazyResearch/smallfry")
    parser.add_argument("--out", type=Path, help="write the results to this file, as JSON")
    parser.add_argument(
        "--smoke", action="store_true", help="run at tiny sizes without a GPU, to check the program"
    )
    options = parser.parse_args(arguments)
    if options.smoke and os.environ.get("TRITON_INTERPRET") != "1":
        # Triton reads the variable when it is imported.
        os.execve(
            sys.executable, module("benchmarks.gpu.run", *arguments), os.environ | {"TRITON_INTERPRET": "1"}
        )
    if not options.smoke and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device; --smoke runs without one")
    gpu = _gpu(options.smoke)
    started = time.monotonic()
    print(_machine(gpu))
    print(f"{gpu.lookups} lookups per call")
    bandwidth = measure_bandwidth(gpu)
    print(f"memory bandwidth of a copy: {bandwidth / 1e9:,.0f} GB/s, reads and writes together")
    parts = [
        lookups(gpu, bandwidth),
        bags(gpu),
        against_original(gpu, options.original),
        small_calls(gpu),
        launches(gpu),
        paged_gathers(gpu, 500 if options.smoke else 4_000_000),
    ]
    missing = [
        name
        for name in ("fastapi", "uvicorn", "httptools", "uvloop", "orjson")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        print(f"server part skipped: missing {', '.join(missing)} (pip install 'smallfry[server]')")
    else:
        from benchmarks.gpu.server import break_even, latencies

        rows = 500 if options.smoke else gpu.sizes[0][0]
        parts += [break_even(gpu, rows), latencies(gpu, rows)]
    measured: list[Row] = []
    for part in parts:
        for row in part:
            measured.append(row)
            print(row, flush=True)
        if options.out is not None:
            # Written after each part, so that an interrupted run keeps its results.
            results = {
                "machine": _machine(gpu),
                "bandwidth": bandwidth,
                "rows": [asdict(row) for row in measured],
            }
            options.out.write_text(json.dumps(results, indent=1))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
