"""Decoding rows to float32, against torch's float table, its packed ones and the original module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.comparison import Comparison, count_of, speedup
from benchmarks.common.original import load_original
from benchmarks.common.timing import Timing, take_turns
from benchmarks.library.workload import Workload
from smallfry import QuantEmbedding
from smallfry.table import Table

GROUP = "decode"
NBITS = (1, 2, 4, 8)
BATCH = 16_384
ORIGINAL_ROWS = 10_000
ORIGINAL_ROUNDS = 3

FLOAT_TARGETS = {1: 2.0, 2: 2.0, 4: 2.0, 8: 1.5}
BAG_TARGETS = {2: 1.8, 4: 1.8, 8: 1.2}
ORIGINAL_TARGET = 100.0
FILL_TARGET = 3.0
TRELLIS_TARGETS = {8: 1.2, 12: 3.0}

Decode = Callable[[Tensor], object]


def compare_decoding(workload: Workload) -> Iterator[Comparison]:
    """Decode random rows with one and with two threads."""
    ours = {nbit: _packed(workload.weight, nbit) for nbit in NBITS}
    bags = {nbit: torch_bag(workload.weight, nbit) for nbit in BAG_TARGETS}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        yield from _against_torch(workload, ours, bags, threads)
        yield from _trellis_against_uniform(workload, threads)
    if workload.original:
        yield from _against_original(workload, workload.original)


def _against_torch(
    workload: Workload, ours: dict[int, QuantEmbedding], bags: dict[int, Decode], threads: int
) -> Iterator[Comparison]:
    out = torch.empty(BATCH, workload.weight.shape[1])
    copied = torch.ones_like(out)
    sides: dict[str, Decode] = {
        "copy": lambda _: out.copy_(copied),
        "fill": lambda _: out.fill_(0.0),
        "float": lambda ids: F.embedding(ids, workload.weight),
    }
    sides |= {f"bag {nbit}": bag for nbit, bag in bags.items()}
    sides |= {f"ours {nbit}": module for nbit, module in ours.items()}
    sides |= {f"into {nbit}": _into(module, out, threads) for nbit, module in ours.items()}
    with torch.no_grad():
        timings = take_turns(sides, workload.rounds, workload.seconds, workload.random_rows(BATCH))
    bytes_per_second = 2 * out.nbytes / timings["copy"].p50_ms * 1e3
    for nbit, module in ours.items():
        what = f"decode {BATCH:,} rows, {count_of(nbit, 'bit')}, {count_of(threads, 'thread')}"
        moved = out.nbytes + BATCH * module.packed.codes.shape[1]
        limit = f"{moved / bytes_per_second * 1e3:.2f} ms"
        label = f"decode at {nbit} bits" if threads == 1 and nbit in (2, 8) else ""
        peers: list[tuple[str, str, float, str]] = [
            ("float", "torch F.embedding, float32", FLOAT_TARGETS[nbit], "torch, float32 table"),
        ]
        if nbit in bags:
            name = "byte" if nbit == 8 else f"{nbit}bit"
            peers.append(
                (f"bag {nbit}", f"torch embedding_bag_{name}", BAG_TARGETS[nbit], "torch, packed table")
            )
        for side, against, target, short in peers:
            yield Comparison(
                GROUP,
                what,
                against,
                speedup(timings[f"ours {nbit}"], timings[side]),
                target,
                took=_milliseconds(timings[f"ours {nbit}"]),
                limit=limit,
                label=label and f"{label} | {short}",
            )
        yield Comparison(
            GROUP,
            f"{what}, into a buffer",
            "torch fill_ of as many bytes",
            speedup(timings["fill"], timings[f"into {nbit}"]),
            FILL_TARGET,
            at_least=False,
            took=_milliseconds(timings[f"into {nbit}"]),
            limit=limit,
        )


def _trellis_against_uniform(workload: Workload, threads: int) -> Iterator[Comparison]:
    rows, dim = workload.weight.shape
    out = np.empty((BATCH, dim), np.float32)
    tables = {f"uniform {nbit}": _random_table(rows, dim, nbit, 0) for nbit in (1, 2, 4)}
    for bits in TRELLIS_TARGETS:
        tables |= {f"trellis {nbit} {bits}": _random_table(rows, dim, nbit, bits) for nbit in (1, 2, 3, 4)}
    sides = {
        side: lambda ids, table=table: table.decode(ids.numpy(), out=out, threads=threads)
        for side, table in tables.items()
    }
    timings = take_turns(sides, workload.rounds, workload.seconds, workload.random_rows(BATCH))
    for bits, target in TRELLIS_TARGETS.items():
        for nbit, other in ((1, 1), (2, 2), (3, 4), (4, 4)):
            ours = timings[f"trellis {nbit} {bits}"]
            yield Comparison(
                GROUP,
                f"decode {BATCH:,} rows, {count_of(nbit, 'bit')}, {count_of(threads, 'thread')}, trellis of "
                f"{bits} state bits, into a buffer",
                f"uniform, {count_of(other, 'bit')}",
                speedup(timings[f"uniform {other}"], ours),
                target,
                at_least=False,
                took=_milliseconds(ours),
            )


def _random_table(rows: int, dim: int, nbit: int, state_bits: int) -> Table:
    """Return a table of random codes: uniform, or a trellis if it has `state_bits`."""
    random = np.random.default_rng(nbit)
    codes = random.integers(0, 256, (rows, -(-dim * nbit // 8)), np.uint8)
    if not state_bits:
        codebook = np.linspace(-1, 1, 2**nbit, dtype=np.float32)
        return Table(codes, dim, nbit, "uniform", codebook, 1.0)
    codebook = random.standard_normal(2**state_bits, np.float32)
    codebook.view(np.uint32)[:] &= 0xFFFF0000  # bfloat16 values, as the encoder's
    scale = np.linspace(0.5, 2, dim, dtype=np.float32)
    return Table(codes, dim, nbit, "trellis", codebook, 1.0, column_scale=scale)


def _against_original(workload: Workload, checkout: Any) -> Iterator[Comparison]:  # noqa: ANN401
    original = load_original(checkout)
    weight = workload.weight[:ORIGINAL_ROWS].clone()
    sides: dict[str, Decode] = {}
    torch.set_num_threads(1)
    for nbit in NBITS:
        sides[f"original {nbit}"] = original(*weight.shape, _weight=weight, nbit=nbit)
        sides[f"ours {nbit}"] = _packed(weight, nbit)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        ids = workload.random_rows(BATCH, len(weight))
        with torch.no_grad():
            timings = take_turns(sides, ORIGINAL_ROUNDS, workload.seconds, ids)
        for nbit in NBITS:
            yield Comparison(
                GROUP,
                f"decode {BATCH:,} rows, {count_of(nbit, 'bit')}, {count_of(threads, 'thread')}",
                f"the original module, {len(weight):,} rows",
                speedup(timings[f"ours {nbit}"], timings[f"original {nbit}"]),
                ORIGINAL_TARGET,
                took=_milliseconds(timings[f"ours {nbit}"]),
                label="decode at 2 bits | the original module" if (nbit, threads) == (2, 1) else "",
            )


def torch_bag(weight: Tensor, nbit: int) -> Decode:
    """Return torch's operator for packed tables, with one row per bag."""
    name = "byte" if nbit == 8 else f"{nbit}bit"
    packed = getattr(torch.ops.quantized, f"embedding_bag_{name}_prepack")(weight)
    operator = getattr(torch.ops.quantized, f"embedding_bag_{name}_rowwise_offsets")
    offsets = torch.arange(BATCH)
    return lambda ids: operator(packed, ids, offsets)


def _packed(weight: Tensor, nbit: int) -> QuantEmbedding:
    return QuantEmbedding(*weight.shape, _weight=weight, nbit=nbit)


def _into(module: QuantEmbedding, out: Tensor, threads: int) -> Decode:
    table, array = module.packed.to_table(), out.numpy()
    return lambda ids: table.decode(ids.numpy(), out=array, threads=threads)


def _milliseconds(timing: Timing) -> str:
    return f"{timing.p50_ms:.2f} ms"
