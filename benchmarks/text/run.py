"""Measure text models against model2vec: equality, rates, memory, and a server against the library.

Both sides take turns in one process. Needs the packages of the extra ``bench``, wrk on the PATH, and SQuAD in
the folder ``SMALLFRY_DATA``.

    python -m benchmarks.text.run
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread, unless a measurement says otherwise

import numpy as np
import orjson
from model2vec import StaticModel

import smallfry
from benchmarks.common import wrk
from benchmarks.common.comparison import Comparison, Spread, print_comparisons, speedup
from benchmarks.common.processes import ROOT, cpu_seconds, free_port, listening, module, running, server
from benchmarks.common.timing import take_turns
from benchmarks.text.models import squad, unigram, wordpiece
from benchmarks.text.process import TEXTS
from smallfry.compress import compress_file
from smallfry.media_types import JSON, RAW

BATCH = 1024
REQUEST = 64
"""Texts per request to the server."""
STARTS = 7
EQUAL, FASTER, MEMORY_MB, OPEN_MS, OF_LIBRARY = 1e-6, 3.0, 45.0, 60.0, 0.6


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="turns of each side (11)")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of each side in each round (0.5)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "text.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        comparisons = list(compare(Path(folder), options.rounds, options.seconds))
    print_comparisons(comparisons)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([row.as_json() for row in comparisons], indent=2) + "\n")


def compare(folder: Path, rounds: int, seconds: float) -> Iterator[Comparison]:
    """Compare the two models."""
    questions, contexts = squad()
    for name, directory in (("Unigram", unigram()), ("WordPiece", wordpiece(folder))):
        files = {nbit: folder / f"{name}-{nbit}.sfq" for nbit in (32, 4)}
        for nbit, file in files.items():
            compress_file(directory, file, nbit)
        peer = StaticModel.from_pretrained(directory)
        yield _equality(name, files[32], peer, [*questions, *contexts])
        yield from _rates(name, files[4], peer, questions, rounds, seconds)
        yield from _processes(name, files[4], directory)
        yield from _server(name, files[4], folder, questions, rounds, seconds)


def _equality(name: str, file: Path, peer: StaticModel, texts: list[str]) -> Comparison:
    encoder = smallfry.open(file).encoder()
    difference = np.abs(encoder.encode(texts) - peer.encode(texts, use_multiprocessing=False)).max()
    return Comparison(
        "equality",
        f"{name}: largest difference of a value, {len(texts):,} texts, 32 bits",
        "model2vec",
        Spread.of([float(difference)]),
        EQUAL,
        at_least=False,
        unit="",
    )


def _rates(
    name: str, file: Path, peer: StaticModel, questions: list[str], rounds: int, seconds: float
) -> Iterator[Comparison]:
    encoder = smallfry.open(file).encoder()
    batches = cycle([questions[begin : begin + BATCH] for begin in range(0, len(questions) - BATCH, BATCH)])
    for threads in (1, 2):
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        timings = take_turns(
            {
                "smallfry": lambda texts, threads=threads: encoder.encode(texts, threads=threads),
                "model2vec": lambda texts: peer.encode(texts, use_multiprocessing=False),
            },
            rounds,
            seconds,
            lambda: (next(batches),),
        )
        ours, theirs = (timings[side].requests_per_second * BATCH for side in ("smallfry", "model2vec"))
        yield Comparison(
            "texts",
            f"{name}: texts/s, SQuAD questions, {threads} thread{'s' if threads > 1 else ''}, 4 bits",
            f"model2vec ({theirs:,.0f} texts/s)",
            speedup(timings["smallfry"], timings["model2vec"]),
            FASTER,
            took=f"{ours:,.0f} texts/s",
        )


def _processes(name: str, file: Path, directory: Path) -> Iterator[Comparison]:
    ours, theirs = _play("smallfry", file), _play("model2vec", directory)
    yield Comparison(
        "process",
        f"{name}: private memory after encoding {BATCH:,} texts",
        f"model2vec: {theirs['private'] / 1e6:.0f} MB",
        Spread.of([ours["private"] / 1e6]),
        MEMORY_MB,
        at_least=False,
        unit="MB",
    )
    first = smallfry.open(file).encoder()
    first.encode(TEXTS)
    yield Comparison(
        "process",
        f"{name}: private memory of a second process with the same file",
        "",
        Spread.of([_play("smallfry", file)["private"] / 1e6]),
        MEMORY_MB,
        at_least=False,
        unit="MB",
    )
    seconds = [_play("smallfry", file)["seconds"] for _ in range(STARTS)]
    yield Comparison(
        "process",
        f"{name}: open to first vector, after the imports",
        f"model2vec: {theirs['seconds'] * 1e3:,.0f} ms",
        Spread.of([value * 1e3 for value in seconds]),
        OPEN_MS,
        at_least=False,
        unit="ms",
    )


def _play(role: str, model: Path) -> dict[str, Any]:
    command = module("benchmarks.text.process", role, str(model))
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    measured: dict[str, Any] = json.loads(output)
    return measured


def _server(
    name: str, file: Path, folder: Path, questions: list[str], rounds: int, seconds: float
) -> Iterator[Comparison]:
    """Compare the rate of one worker, per second of its processor time, with that of the library."""
    batches = [questions[begin : begin + REQUEST] for begin in range(0, REQUEST * wrk.SCRIPTED, REQUEST)]
    requests = {
        ("/lookup", RAW): [{"texts": batch} for batch in batches],
        ("/v1/embeddings", JSON): [
            {"model": file.stem, "input": batch, "encoding_format": "base64"} for batch in batches
        ],
    }
    encoder = smallfry.open(file).encoder()
    port, script = free_port(), folder / "texts.lua"
    with running(server(file, "--port", str(port)), listening(port)) as process:
        for (route, accept), bodies in requests.items():
            script.write_bytes(wrk.script(list(map(orjson.dumps, bodies)), accept))
            shares, rates = [], []
            for _ in range(rounds):
                before = cpu_seconds(process.pid)
                count, rate = wrk.load(script, f"http://127.0.0.1:{port}{route}", max(1.0, seconds))
                served = (cpu_seconds(process.pid) - before) / count
                start, calls = time.process_time(), 0
                while time.process_time() - start < seconds:
                    encoder.encode(batches[calls % len(batches)], threads=1)
                    calls += 1
                shares.append((time.process_time() - start) / calls / served)
                rates.append(rate * REQUEST)
            yield Comparison(
                "server",
                f"{name}: rate of one worker, {REQUEST} texts per request to {route}, {accept}",
                "the library, one thread (per processor time)",
                Spread.of(shares),
                OF_LIBRARY,
                took=f"{Spread.of(rates).median:,.0f} texts/s",
            )


if __name__ == "__main__":
    main()
