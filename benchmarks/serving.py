"""The server: how soon it answers whatever the size of its file, and what memory it takes."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from comparison import Comparison, Figure
from processes import free_port, listening, pss, python, running
from workload import Workload

import smallfry
from smallfry import format
from smallfry.client import Client
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

START, MEMORY = "start", "memory"
SMALL_ROWS, LARGE_ROWS = 1_000, 2_000_000
STARTS = 7
LOOKUPS = 100_000
CONNECTIONS = 8
START_TARGET, PSS_TARGET, PRIVATE_TARGET = 1.2, 110.0, 45.0


def compare_starts(workload: Workload) -> Iterator[Comparison]:
    """Time servers of files of several sizes, in turns, from their start to the first answer."""
    sizes = (SMALL_ROWS, workload.rows, max(LARGE_ROWS, workload.rows))
    files = {rows: workload.folder / f"random-{rows}.sfq" for rows in sizes}
    for rows, file in files.items():
        write_random(file, rows)
        seconds_to_answer(file)
    seconds: dict[int, list[float]] = {rows: [] for rows in files}
    for _ in range(STARTS):
        for rows, file in files.items():
            seconds[rows].append(seconds_to_answer(file))
    small = Figure.of(seconds[SMALL_ROWS])
    for rows in sizes[1:]:
        yield Comparison(
            START,
            f"start of the server to its first answer, {rows:,} rows",
            f"the same at {SMALL_ROWS:,} rows ({small.median * 1e3:.0f} ms)",
            Figure.quotient(seconds[rows], seconds[SMALL_ROWS]),
            START_TARGET,
            at_least=False,
            took=f"{Figure.of(seconds[rows]).median * 1e3:.0f} ms",
        )
        files[rows].unlink()


def write_random(path: Path, rows: int, dim: int = 300) -> None:
    """Write a table of random codes at 2 bits, under made-up tokens."""
    codes = np.random.default_rng(0).integers(0, 256, (rows, dim // 4), np.uint8)
    levels = np.arange(-1.5, 2.0).astype(np.float32)
    table = Table(codes, dim, 2, "uniform", levels, clip=1.5)
    format.write(path, table, Vocabulary.build([f"word-{row}" for row in range(rows)]))


def seconds_to_answer(file: Path) -> float:
    """Start a server; return the time until a lookup has been answered."""
    port = free_port()
    start = time.perf_counter()
    with running(serve(file, "--port", str(port))) as process:
        while not _answered(port):
            if process.poll() is not None:
                raise RuntimeError(f"the server of {file} ended with {process.returncode}")
            time.sleep(0.001)
        return time.perf_counter() - start


def serve(file: Path, *options: str) -> list[str]:
    """Return the command of a server."""
    return python(
        *("-m", "service.cli", "--embeddings", str(file), "--log-level", "warning", "--drain-delay", "0"),
        *options,
    )


def _answered(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        body = orjson.dumps({"tokens": ["word-0"]})
        connection.request("POST", "/lookup", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def compare_memory(workload: Workload) -> Iterator[Comparison]:
    """Look every token up, in many requests, and read what the processes hold."""
    tokens = workload.tokens
    requests = [tokens[start::LOOKUPS] for start in range(min(LOOKUPS, len(tokens)))]
    with smallfry.open(workload.file) as store:
        floats = store.baseline_nbytes["total"]
    size = workload.file.stat().st_size / 1e6
    with serving(workload.file, 1) as (port, process):
        ask_all(port, requests)
        yield Comparison(
            MEMORY,
            f"PSS of the server after {len(requests):,} lookups of all {len(tokens):,} tokens, 2 bits",
            f"float32 and a dict: {floats / 1e6:,.0f} MB before any server",
            Figure.of([pss(process) / 1e6]),
            PSS_TARGET,
            at_least=False,
            unit="MB",
            took=f"of which the file {size:.0f} MB",
        )
    for workers in (2, 3):
        with serving(workload.file, workers) as (port, process):
            ask_all(port, requests[: len(requests) // 10])
            private = [private_bytes(child) / 1e6 for child in children(process)]
        if len(private) != workers:
            raise RuntimeError(f"{len(private)} of {workers} workers run")
        yield Comparison(
            MEMORY,
            f"private memory of each of {workers} workers",
            "",
            Figure.of(private),
            PRIVATE_TARGET,
            at_least=False,
            unit="MB",
        )


@contextmanager
def serving(file: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Run a server while the block lasts; gives its port and the number of its process."""
    port = free_port()
    command = serve(file, "--port", str(port), "--workers", str(workers))
    with running(command, listening(("127.0.0.1", port))) as process:
        yield port, process.pid


def ask_all(port: int, requests: Sequence[list[str]]) -> None:
    """Look up every request, on several connections at once."""

    def ask(part: Sequence[list[str]]) -> int:
        with Client(f"http://127.0.0.1:{port}") as client:
            return sum(int(client.lookup(tokens).found.sum()) for tokens in part)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = sum(pool.map(ask, [requests[first::CONNECTIONS] for first in range(CONNECTIONS)]))
    if found != sum(map(len, requests)):
        raise RuntimeError(f"the server found {found} of {sum(map(len, requests))} tokens")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
