"""What a GPU does for lookups: the kernels against the card's bandwidth, torch and the original; the server.

    python -m benchmarks.gpu.run --out gpu.json

Runs on a bare machine with torch for CUDA and Triton, in under 5 minutes, also where smallfry is not
installed. The part that starts servers is left out, and says so, where packages of ``smallfry[server]`` are
missing. ``--smoke`` runs every part at tiny sizes, without a GPU, in Triton's interpreter: it shows that the
program works, and its times mean nothing.
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
from benchmarks.gpu.device import WRITTEN_FIRST, Card, Row
from smallfry.nn import operators, triton_launch
from smallfry.nn.packed import Packed

NBITS = (1, 2, 4, 8, 16, 32)
DTYPES = (torch.float32, torch.float16)
BOUND_TARGET = 0.8
FLOAT_TARGETS = {1: 1.6, 2: 1.6, 4: 1.6}
BAG_TARGET = 4.0
ORIGINAL_TARGET = 20.0
BAG = 20


def decode(ids: Tensor, packed: Packed) -> Tensor:
    """Look up as a module on this device does; in the interpreter that takes the kernels on CPU."""
    return operators.decode(ids, packed) if ids.is_cuda else triton_launch.decode(ids, packed)


def bag(ids: Tensor, offsets: Tensor, packed: Packed) -> Tensor:
    """Add up as a module on this device does."""
    given = (ids, offsets, None, packed, "sum", -1, False)
    return operators.bag(*given) if ids.is_cuda else triton_launch.bag(*given)


def bandwidth(card: Card) -> float:
    """Return the bytes read and written in a second by a copy on the card."""
    source = torch.empty(
        1 << (30 if card.device.type == "cuda" else 16), dtype=torch.uint8, device=card.device
    )
    target = torch.empty_like(source)
    return 2 * source.nbytes / card.time(lambda: target.copy_(source))


def lookups(card: Card, bytes_a_second: float) -> Iterator[Row]:
    """Look up in tables of each width, against the bound and torch's float32 table."""
    for rows, dim in card.sizes:
        ids = card.ids(rows, card.lookups)
        weight = card.table(rows, dim, 32).codes
        plain = card.time(lambda ids=ids, weight=weight: F.embedding(ids, weight))
        yield Row(f"F.embedding, float32, {dim} dimensions", plain)
        del weight
        for dtype in DTYPES:
            for nbit in NBITS:
                packed = card.table(rows, dim, nbit, dtype)
                took = card.time(lambda ids=ids, packed=packed: decode(ids, packed))
                moved = ids.nbytes + len(ids) * packed.codes[0].nbytes + len(ids) * dim * dtype.itemsize
                what = f"lookup, {nbit} bits, {dim} dimensions, {str(dtype)[6:]}"
                bound = moved / bytes_a_second
                yield Row(what, took, f"the bound, {bound * 1e3:.3f} ms", bound / took, BOUND_TARGET)
                if dtype == torch.float32 and nbit < 32:
                    yield Row(what, took, "F.embedding", plain / took, FLOAT_TARGETS.get(nbit))
                del packed


def bags(card: Card) -> Iterator[Row]:
    """Add up bags of 20 rows, against torch's bags of a float32 table."""
    for rows, dim in card.sizes:
        ids = card.ids(rows, card.lookups // BAG * BAG)
        offsets = torch.arange(0, len(ids), BAG, device=card.device)
        weight = card.table(rows, dim, 32).codes
        plain = card.time(
            lambda ids=ids, offsets=offsets, weight=weight: F.embedding_bag(ids, weight, offsets, mode="sum")
        )
        yield Row(f"F.embedding_bag, float32, {dim} dimensions", plain)
        del weight
        for nbit in NBITS[:-1]:
            packed = card.table(rows, dim, nbit)
            took = card.time(lambda ids=ids, offsets=offsets, packed=packed: bag(ids, offsets, packed))
            target = BAG_TARGET if nbit <= 4 else None
            what = f"bags of {BAG}, {nbit} bits, {dim} dimensions"
            yield Row(what, took, "F.embedding_bag", plain / took, target)


def beside_original(card: Card, checkout: Path | None) -> Iterator[Row]:
    """Look up as the original does: int64 words gathered, taken apart into int64, then values gathered."""
    rows, dim = card.sizes[0]
    ids = card.ids(rows, max(1, card.lookups // 8))
    named = "the original" if checkout else "the original's forward, restated"
    for nbit in (1, 2, 4, 8):
        packed = card.table(rows, dim, nbit)
        assert packed.codebook is not None
        if checkout is None:
            forward = _original(card, rows, dim, nbit, packed.codebook)
        else:
            weight = packed.codebook[torch.randint(0, 2**nbit, (1000, dim), device=card.device)].cpu()
            module = load_original(checkout)(1000, dim, _weight=weight, nbit=nbit).to(card.device)
            words = torch.randint(-(2**62), 2**62, (rows, module.weight.shape[1]), device=card.device)
            module.weight = torch.nn.Parameter(words, requires_grad=False)
            forward = module.forward
        theirs = card.time(lambda forward=forward: forward(ids))
        took = card.time(lambda packed=packed: decode(ids, packed))
        what = f"{len(ids)} lookups, {nbit} bits, {dim} dimensions"
        yield Row(what, took, named, theirs / took, ORIGINAL_TARGET)


def _original(card: Card, rows: int, dim: int, nbit: int, values: Tensor) -> Callable[[Tensor], Tensor]:
    each = 64 // nbit
    words = torch.randint(-(2**62), 2**62, (rows, -(-dim // each)), device=card.device)

    def forward(ids: Tensor) -> Tensor:
        packed = F.embedding(ids, words)
        codes = torch.zeros(len(ids), packed.shape[1] * each, dtype=torch.int64, device=card.device)
        for place in range(each):
            codes[:, place::each] = (packed >> (each - place - 1) * nbit) & (2**nbit - 1)
        return values[codes[:, :dim].contiguous()]

    return forward


def small_calls(card: Card) -> Iterator[Row]:
    """Look up a few rows: what a call costs, and what it does inside a CUDA graph."""
    rows, dim = card.sizes[0]
    packed = card.table(rows, dim, 2)
    weight = card.table(rows, dim, 32).codes
    for count in (1, 1024):
        ids = card.ids(rows, count)
        calls = {
            "F.embedding": lambda ids=ids: F.embedding(ids, weight),
            "lookup": lambda ids=ids: decode(ids, packed),
        }
        for name, call in calls.items():
            call()
            started = time.perf_counter()
            for _ in range(card.rounds):
                call()
            if card.device.type == "cuda":
                torch.cuda.synchronize()
            yield Row(
                f"{name} of {count} rows, calls in a row", (time.perf_counter() - started) / card.rounds
            )
        if card.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                decode(ids, packed)
            yield Row(f"lookup of {count} rows in a CUDA graph", card.time(graph.replay))


def launches(card: Card) -> Iterator[Row]:
    """Look up with other launch constants than those chosen, which may not be the best here."""
    kept = triton_launch._STORES, triton_launch._WARPS, triton_launch._AHEAD
    rows, dim = card.sizes[0]
    packed, ids = card.table(rows, dim, 2), card.ids(rows, card.lookups)
    offsets = torch.arange(0, len(ids), BAG, device=card.device)
    for stores, warps in ((1, 4), (2, 4), (4, 4), (8, 4), (4, 8)):
        triton_launch._STORES, triton_launch._WARPS = stores, warps
        yield Row(f"lookup, {stores} stores a thread, {warps} warps", card.time(lambda: decode(ids, packed)))
    triton_launch._STORES, triton_launch._WARPS, _ = kept
    for ahead in (1, 2, 4, 8):
        triton_launch._AHEAD = ahead
        yield Row(f"bags, {ahead} rows ahead", card.time(lambda: bag(ids, offsets, packed)))
    triton_launch._STORES, triton_launch._WARPS, triton_launch._AHEAD = kept


def _card(smoke: bool) -> Card:
    if smoke:
        return Card(torch.device("cpu"), 64, ((50, 12), (20, 64)), 1)
    sizes = ((400_000, 300), (1 << 17, 4096))
    rows, dim = sizes[-1]
    # A float32 table, made from another, and what is written before each call.
    free = torch.cuda.mem_get_info()[0] - 2 * 4 * rows * dim - WRITTEN_FIRST
    if free < 1 << 30:
        raise SystemExit("this takes 6.5 GB of free memory on the GPU")
    # An answer of 4,096 dimensions, torch's beside it, and what the allocator keeps.
    lookups = 1 << min(20, int(math.log2(free / (3.5 * 4 * dim))))
    return Card(torch.device("cuda"), lookups, sizes, 20)


def _machine(card: Card) -> str:
    if card.device.type == "cpu":
        return "the CPU, through Triton's interpreter: no figure here means anything"
    import triton

    name = torch.cuda.get_device_name()
    return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, Triton {triton.__version__}"


def main(arguments: Sequence[str]) -> None:
    """Measure, print and, with ``--out``, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="a checkout of HazyResearch/smallfry")
    parser.add_argument("--out", type=Path, help="file to write the figures to, as JSON")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, without a GPU: does the program work?"
    )
    given = parser.parse_args(arguments)
    if given.smoke and os.environ.get("TRITON_INTERPRET") != "1":
        # Triton reads it when it is imported.
        os.execve(
            sys.executable, module("benchmarks.gpu.run", *arguments), os.environ | {"TRITON_INTERPRET": "1"}
        )
    if not given.smoke and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device; --smoke runs without one")
    card = _card(given.smoke)
    started = time.monotonic()
    print(_machine(card))
    print(f"{card.lookups} lookups a call")
    speed = bandwidth(card)
    print(f"a copy on the card reads and writes {speed / 1e9:,.0f} GB/s")
    parts = [
        lookups(card, speed),
        bags(card),
        beside_original(card, given.original),
        small_calls(card),
        launches(card),
    ]
    missing = [
        name
        for name in ("fastapi", "uvicorn", "httptools", "uvloop", "orjson")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        print(f"the server is left out: {', '.join(missing)} are missing (pip install 'smallfry[server]')")
    else:
        from benchmarks.gpu.server import break_even, served

        rows = 500 if given.smoke else card.sizes[0][0]
        parts += [break_even(card, rows), served(card, rows)]
    measured: list[Row] = []
    for part in parts:
        for row in part:
            measured.append(row)
            print(row, flush=True)
        if given.out is not None:
            # After each part, so that an interrupted run keeps what it measured.
            results = {
                "machine": _machine(card),
                "bytes_a_second": speed,
                "rows": [asdict(row) for row in measured],
            }
            given.out.write_text(json.dumps(results, indent=1))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
