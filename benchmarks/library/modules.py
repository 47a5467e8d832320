"""The torch modules on CPU: single lookups, small bags and output heads, against those of torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.common.comparison import Comparison, Spread, count_of
from benchmarks.common.timing import Timing, take_turns
from benchmarks.library.workload import Workload
from smallfry import QuantEmbedding, QuantEmbeddingBag
from smallfry.nn import TiedLinear

GROUP = "modules"
NBIT = 4
TABLE = (50_000, 256)
BAGS = ((1, 10), (64, 20))
HEADS = {"GPT-2": (50_257, 768), "Llama": (32_000, 4_096)}
TOKENS = (1, 8, 128)
HALF = (torch.bfloat16, torch.float16)

ID_TARGET = 8.0
BAG_TARGET = 1.5
HEAD_TARGET = 1.2


def compare_modules(workload: Workload) -> Iterator[Comparison]:
    """Call our modules and those of torch with one and with two threads."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            yield from _compare_lookups(workload, threads)
            yield from _compare_heads(workload, threads)


def _compare_lookups(workload: Workload, threads: int) -> Iterator[Comparison]:
    weight = torch.randn(TABLE)
    ours, theirs = QuantEmbedding(*TABLE, _weight=weight, nbit=NBIT), nn.Embedding(*TABLE, _weight=weight)
    timings = take_turns(
        {"ours": ours, "torch": theirs},
        workload.rounds,
        workload.seconds,
        lambda: (torch.randint(TABLE[0], (1,)),),
    )
    yield Comparison(
        GROUP,
        f"one id, {count_of(NBIT, 'bit')}, {count_of(threads, 'thread')}",
        f"a limit; nn.Embedding took {_took(timings['torch'])}",
        Spread.of([median * 1e6 for median in timings["ours"].round_medians]),
        ID_TARGET,
        at_least=False,
        unit="µs",
        took=_took(timings["ours"]),
    )
    for nbit in (NBIT, 32):
        for shape in BAGS:
            sides = {
                "ours": QuantEmbeddingBag(*TABLE, _weight=weight, nbit=nbit),
                "torch": nn.EmbeddingBag(*TABLE, _weight=weight),
            }
            timings = take_turns(
                sides,
                workload.rounds,
                workload.seconds,
                lambda shape=shape: (torch.randint(TABLE[0], shape),),
            )
            what = f"{count_of(shape[0], 'bag')} of {shape[1]} ids, {count_of(nbit, 'bit')}"
            yield _compare(f"{what}, {count_of(threads, 'thread')}", "nn.EmbeddingBag", timings, BAG_TARGET)


def _compare_heads(workload: Workload, threads: int) -> Iterator[Comparison]:
    for model, shape in HEADS.items():
        weight = torch.randn(shape) * 0.02
        head = TiedLinear(QuantEmbedding(*shape, _weight=weight, nbit=NBIT))
        for dtype in (torch.float32, *HALF):
            linear = nn.Linear(*reversed(shape), bias=False, device="meta")
            linear.weight = nn.Parameter(weight.to(dtype))
            head.embedding.to(dtype)
            for tokens in TOKENS:
                hidden: Tensor = torch.randn(tokens, shape[1]).to(dtype)
                timings = take_turns(
                    {"ours": head, "torch": linear}, workload.rounds, workload.seconds, lambda h=hidden: (h,)
                )
                yield _compare(
                    f"{model} head, {str(dtype).removeprefix('torch.')}, {count_of(tokens, 'token')}, "
                    f"{count_of(NBIT, 'bit')}, {count_of(threads, 'thread')}",
                    "nn.Linear",
                    timings,
                    HEAD_TARGET,
                )


def _compare(what: str, against: str, timings: dict[str, Timing], target: float) -> Comparison:
    ours, theirs = timings["ours"], timings["torch"]
    return Comparison(
        GROUP,
        what,
        f"{against}, {_took(theirs)}",
        Spread.of_quotients(ours.round_medians, theirs.round_medians),
        target,
        at_least=False,
        took=_took(ours),
    )


def _took(timing: Timing) -> str:
    seconds = timing.p50_ms / 1e3
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
