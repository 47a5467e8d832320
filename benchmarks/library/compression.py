"""Compressing a tensor, against the original module, and a text file, against gensim; memory of both."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gensim.models import KeyedVectors
from torch import Tensor

from benchmarks.common.comparison import Comparison, Spread, count_of, speedup
from benchmarks.common.original import load_original
from benchmarks.common.processes import ROOT, module
from benchmarks.common.timing import take_turns
from benchmarks.library.workload import Workload
from smallfry import BEST, QuantEmbedding, quantize
from smallfry.compress import compress_file

TENSOR, TEXT = "tensor", "text"
ROUNDS = 3
TENSOR_ROUNDS = 7
"""For a small tensor: smallfry takes milliseconds, the original a large part of a second."""
ORIGINAL_ROWS = 10_000
TEXT_ROWS = 50_000
BLOCK_ROWS = 10_000
"""Distinct rows of a text file; further rows repeat them with other tokens."""

ORIGINAL_TARGET, ERROR_TARGET, EXTRA_TARGET = 50.0, 1.0, 0.2
GENSIM_TARGET, PEAK_TARGET = 20.0, 250.0
TRELLIS_TARGET, BEST_TARGET = 15.0, 90.0
"""Seconds on two cores for 400,000 rows of 300 values."""


def compare_tensors(workload: Workload) -> Iterator[Comparison]:
    """Compress a float32 tensor at 2 bits."""
    if workload.original:
        original = load_original(workload.original)
        for cores in (1, 2):
            yield from _against_original(workload, original, cores)
    weight = workload.weight
    copied = torch.empty_like(weight)
    sides: dict[str, Callable[[], object]] = {
        "copy": partial(copied.copy_, weight),
        "smallfry": partial(QuantEmbedding, *weight.shape, _weight=weight, nbit=2),
    }
    with on_cores(1):
        timings = take_turns(sides, ROUNDS, 0)
    seconds = 1 / timings["smallfry"].requests_per_second
    # A copy moves each byte twice, a pass over the tensor once.
    one_pass = 1 / timings["copy"].requests_per_second / 2
    memory = peak("tensor", str(workload.rows))
    extra = memory["peak"] - memory["before"] - memory["made"]
    yield Comparison(
        TENSOR,
        f"memory to compress {workload.rows:,} rows, 2 bits",
        "the input's bytes",
        Spread.of([extra / weight.nbytes]),
        EXTRA_TARGET,
        at_least=False,
        took=f"{extra / 1e6:.0f} MB, {seconds:.2f} s ({seconds / weight.numel() * 1e9:.1f} ns/value)",
        limit=f"{one_pass:.2f} s per pass",
    )
    yield from _trellis(workload)


def _trellis(workload: Workload) -> Iterator[Comparison]:
    """Compress a float32 matrix at 2 bits with trellis codebooks."""
    matrix = workload.weight.numpy()
    for name, options, target in (
        ("trellis", {"codebook_kind": "trellis"}, TRELLIS_TARGET),
        ("best", BEST, BEST_TARGET),
    ):
        with on_cores(2):
            start = time.perf_counter()
            quantize(matrix, 2, **options)
            seconds = time.perf_counter() - start
        yield Comparison(
            TENSOR,
            f"compress {workload.rows:,} rows, 2 bits, {name}, 2 cores",
            "seconds",
            Spread.of([seconds]),
            target,
            at_least=False,
            unit="s",
            took=f"{seconds / matrix.size * 1e9:.0f} ns/value",
        )


def _against_original(workload: Workload, original: type[Any], cores: int) -> Iterator[Comparison]:
    weight = workload.weight[:ORIGINAL_ROWS].clone()
    sides: dict[str, Callable[[], torch.nn.Module]] = {
        "smallfry": partial(QuantEmbedding, *weight.shape, _weight=weight, nbit=2),
        "original": partial(original, *weight.shape, _weight=weight, nbit=2),
    }
    with on_cores(cores):
        timings = take_turns(sides, TENSOR_ROUNDS, workload.seconds)
    what, against = f"compress {len(weight):,} rows, 2 bits", "the original module"
    yield Comparison(
        TENSOR,
        f"{what}, {count_of(cores, 'core')}",
        against,
        speedup(timings["smallfry"], timings["original"]),
        ORIGINAL_TARGET,
        took=f"{timings['smallfry'].p50_ms:.1f} ms",
        label="compress a tensor at 2 bits | the original module" if cores == 1 else "",
    )
    if cores > 1:
        return
    errors = {name: relative_error(make(), weight) for name, make in sides.items()}
    yield Comparison(
        TENSOR,
        f"error of {what}",
        f"{against} ({errors['original']:.6f})",
        Spread.of([errors["smallfry"] / errors["original"]]),
        ERROR_TARGET,
        at_least=False,
        took=f"{errors['smallfry']:.6f}",
    )


def compare_texts(workload: Workload) -> Iterator[Comparison]:
    """Compress files in GloVe's text format at 2 bits."""
    rows = min(TEXT_ROWS, workload.rows // 8)
    text, output = workload.folder / "vectors.txt", workload.folder / "vectors.sfq"
    write_text(text, workload.weight, rows)
    sides: dict[str, Callable[[], object]] = {
        "smallfry": lambda: compress_file(text, output, 2),
        "gensim": lambda: KeyedVectors.load_word2vec_format(text, no_header=True),
    }
    with on_cores(1):
        timings = take_turns(sides, ROUNDS, 0)
    seconds, size = 1 / timings["smallfry"].requests_per_second, text.stat().st_size
    yield Comparison(
        TEXT,
        f"compress a text of {rows:,} rows, 2 bits, 1 core",
        f"gensim loads it ({1 / timings['gensim'].requests_per_second:.1f} s)",
        speedup(timings["smallfry"], timings["gensim"]),
        GENSIM_TARGET,
        took=f"{seconds:.2f} s, {size / seconds / 1e6:.0f} MB/s",
        label="compress a text at 2 bits | gensim, only loading",
    )
    write_text(text, workload.weight, workload.rows)
    memory = peak("text", str(text), str(output))
    yield Comparison(
        TEXT,
        f"peak memory to compress a text of {workload.rows:,} rows ({text.stat().st_size / 1e9:.2f} GB)",
        f"{PEAK_TARGET:.0f} MB and the output ({memory['made'] / 1e6:.0f} MB)",
        Spread.of([memory["peak"] / 1e6]),
        PEAK_TARGET + memory["made"] // 1_000_000,
        at_least=False,
        unit="MB",
    )
    text.unlink()
    output.unlink()


def write_text(path: Path, weight: Tensor, rows: int) -> None:
    """Write vectors as text; after `BLOCK_ROWS` rows they repeat with other tokens."""
    block = [" ".join([format(value, ".5g") for value in row]) for row in weight[:BLOCK_ROWS].tolist()]
    with path.open("w") as file:
        for row in range(rows):
            file.write(f"word-{row} {block[row % len(block)]}\n")


def relative_error(module: torch.nn.Module, weight: Tensor) -> float:
    """Return ``||X - Xq|| / ||X||``."""
    decoded = module(torch.arange(len(weight)))
    return float((decoded.double() - weight.double()).norm() / weight.double().norm())


def peak(*arguments: str) -> dict[str, int]:
    """Return what ``peak_memory`` prints."""
    command = module("benchmarks.library.peak_memory", *arguments)
    printed = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    measured: dict[str, int] = json.loads(printed.splitlines()[-1])
    return measured


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Limit the block to that many cores and threads."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, set(sorted(cores)[:count]))
    torch.set_num_threads(count)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
