"""Memory of 400,000 × 300 word vectors and their tokens in one process and in eight, by what holds them.

    python -m benchmarks.library.memory [--rows 400000 --processes 8 --svg docs/images/memory.svg]

Needs redis-server on PATH, and `pip install '.[server,bench]'`. Every process opens the table, looks up each
token once in batches of 1,000, and waits until the memory of all is read. The result is the sum of the
proportional set sizes (PSS) of the processes, less that of as many processes that only import the same
packages, plus the whole PSS of the server if there is one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

import smallfry
from benchmarks.common.dataset import Matrix, read_tokens, write_file
from benchmarks.common.processes import ROOT, free_port, listening, module, pss, running, server
from benchmarks.library.chart import MemoryBar, draw_memory
from benchmarks.server.redis_server import redis_lookup, redis_server
from smallfry.client import Client

DIM = 300
BATCH = 1000

Lookup = Callable[[list[str]], Any]


@contextmanager
def no_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield no address, and no process."""
    yield "", 0


@contextmanager
def serve_file(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the server; yield its URL and its process."""
    port = free_port()
    with running(server(folder / "table.sfq", "--port", str(port)), listening(port)) as process:
        yield f"http://127.0.0.1:{port}", process.pid


@contextmanager
def serve_redis(folder: Path) -> Iterator[tuple[str, int]]:
    """Run Redis with one float32 vector per token; yield its socket and its process."""
    tokens = (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")
    with tempfile.TemporaryDirectory() as own, redis_server(Path(own), tokens) as redis:
        yield redis.socket, redis.pid


def open_matrix(folder: Path, mmap_mode: Literal["r"] | None = None) -> Lookup:
    """Return lookups in a float32 matrix by a dict."""
    matrix, rows = np.load(folder / "matrix.npy", mmap_mode), read_dict(folder)
    return lambda tokens: matrix[[rows[token] for token in tokens]]


def open_torch(folder: Path) -> Lookup:
    """Return lookups in an embedding of torch by a dict."""
    import torch

    torch.set_num_threads(1)
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(np.load(folder / "matrix.npy")))
    rows = read_dict(folder)
    return lambda tokens: embedding(torch.tensor([rows[token] for token in tokens]))


def read_dict(folder: Path) -> dict[str, int]:
    """Return the row of each token."""
    with (folder / "tokens.txt").open(encoding="utf-8") as lines:
        return {line.rstrip("\n"): row for row, line in enumerate(lines)}


def open_model2vec(folder: Path, dtype: str) -> Lookup:
    """Return model2vec's encoding of texts of one token."""
    from model2vec import StaticModel

    return StaticModel.from_pretrained(folder / f"model2vec-{dtype}").encode


def open_redis(folder: Path, address: str) -> Lookup:
    """Return lookups in Redis."""
    import redis

    return redis_lookup(redis.Redis(unix_socket_path=address), DIM)


@dataclass(frozen=True)
class Holder:
    """What holds the table: its label in the chart, packages, and how a process looks up tokens."""

    label: str
    packages: tuple[str, ...]
    open: Callable[[Path, str], Lookup]
    serve: Callable[[Path], AbstractContextManager[tuple[str, int]]] = no_server
    ours: bool = False


HOLDERS = {
    "torch": Holder("torch: nn.Embedding and dict", ("torch",), lambda folder, _: open_torch(folder)),
    "numpy": Holder("NumPy: float32 matrix and dict", ("numpy",), lambda folder, _: open_matrix(folder)),
    "mapped": Holder("NumPy: mapped matrix and dict", ("numpy",), lambda folder, _: open_matrix(folder, "r")),
    "float32": Holder(
        "model2vec, float32", ("model2vec",), lambda folder, _: open_model2vec(folder, "float32")
    ),
    "int8": Holder("model2vec, int8", ("model2vec",), lambda folder, _: open_model2vec(folder, "int8")),
    "redis": Holder("Redis server, float32", ("redis",), open_redis, serve_redis),
    "server": Holder(
        "smallfry server, 2 bits",
        ("smallfry.client",),
        lambda _, url: Client(url).lookup,
        serve_file,
        ours=True,
    ),
    "file": Holder(
        "smallfry file, 2 bits",
        ("smallfry.store",),
        lambda folder, _: smallfry.open(folder / "table.sfq").lookup,
        ours=True,
    ),
}


def write_tables(folder: Path, rows: int) -> None:
    """Write the same vectors in the form that each holder opens."""
    from model2vec import StaticModel
    from model2vec.quantization import DType, quantize_embeddings
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokens = read_tokens(rows)[0]
    (folder / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    write_file(folder / "table.sfq", tokens, nbit=2)
    matrix = np.concatenate(list(Matrix(rows)))
    np.save(folder / "matrix.npy", matrix)
    words = Tokenizer(WordLevel({token: row for row, token in enumerate(tokens)}, unk_token=tokens[0]))
    for name, vectors in (("float32", matrix), ("int8", quantize_embeddings(matrix, DType.Int8))):
        StaticModel(vectors, words).save_pretrained(folder / f"model2vec-{name}")


def measure(name: str, folder: str, count: int) -> float:
    """Return the MB that a holder takes in a number of processes that run at the same time."""
    with HOLDERS[name].serve(Path(folder)) as (address, pid):
        used, imported = (run(name, folder, address, count, *flags) for flags in ((), ("--only-import",)))
        return (used - imported + (pss(pid) if pid else 0)) / 1e6


def run(name: str, folder: str, address: str, count: int, *flags: str) -> int:
    """Return the PSS of processes of a holder, once all are ready."""
    command = module("benchmarks.library.memory", *flags, "--play", name, folder, address)
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for process in processes:
            if not process.stdout or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a process of {name} ended")
        return sum(pss(process.pid) for process in processes)
    finally:
        for process in processes:
            process.communicate()


def play(name: str, folder: str, address: str, only_import: bool) -> None:
    """Open the table of a holder, look up every token, and wait for the end of standard input."""
    holder = HOLDERS[name]
    for package in holder.packages:
        importlib.import_module(package)
    if not only_import:
        lookup = holder.open(Path(folder), address)
        with Path(folder, "tokens.txt").open(encoding="utf-8") as lines:
            while batch := [line.rstrip("\n") for line in islice(lines, BATCH)]:
                lookup(batch)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Measure each holder; print a table, and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--svg", type=Path, help="write the chart to this file")
    parser.add_argument("--play", nargs=3, metavar=("HOLDER", "FOLDER", "ADDRESS"), help=argparse.SUPPRESS)
    parser.add_argument("--only-import", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play(*options.play, options.only_import)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), options.rows)
        bars = [
            MemoryBar(holder.label, holder.ours, *(measure(name, folder, n) for n in (1, options.processes)))
            for name, holder in tqdm(HOLDERS.items(), "holders")
        ]
    print(f"| {options.rows:,} × {DIM} | 1 process | {options.processes} processes |\n|---|--:|--:|")
    for bar in bars:
        print(f"| {bar.label} | {bar.one:,.0f} MB | {bar.many:,.0f} MB |")
    if options.svg:
        title = f"Memory of {options.rows:,} × {DIM} vectors and their tokens"
        options.svg.write_text(draw_memory(title, options.processes, bars))


if __name__ == "__main__":
    main()
