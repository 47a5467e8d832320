"""The server's time to its first response, and its memory, whatever the size of its file."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import orjson

import smallfry
from benchmarks.common.comparison import Comparison, Spread
from benchmarks.common.dataset import write_random_file
from benchmarks.common.processes import (
    children,
    free_port,
    listening,
    private_bytes,
    pss,
    running,
    server,
)
from benchmarks.library.workload import Workload
from smallfry.client import Client

START, MEMORY = "start", "memory"
SMALL_ROWS, LARGE_ROWS = 1_000, 2_000_000
STARTS = 7
LOOKUPS = 100_000
CONNECTIONS = 8
START_TARGET, PSS_TARGET, PRIVATE_TARGET = 1.2, 110.0, 45.0


def compare_starts(workload: Workload) -> Iterator[Comparison]:
    """Time servers of files of several sizes, in turns, from their start to the first response."""
    sizes = (SMALL_ROWS, workload.rows, max(LARGE_ROWS, workload.rows))
    files = {rows: workload.folder / f"random-{rows}.sfq" for rows in sizes}
    for rows, file in files.items():
        write_random_file(file, rows)
        seconds_to_response(file)
    seconds: dict[int, list[float]] = {rows: [] for rows in files}
    for _ in range(STARTS):
        for rows, file in files.items():
            seconds[rows].append(seconds_to_response(file))
    small = Spread.of(seconds[SMALL_ROWS])
    for rows in sizes[1:]:
        yield Comparison(
            START,
            f"start of the server to its first response, {rows:,} rows",
            f"the same at {SMALL_ROWS:,} rows ({small.median * 1e3:.0f} ms)",
            Spread.of_quotients(seconds[rows], seconds[SMALL_ROWS]),
            START_TARGET,
            at_least=False,
            took=f"{Spread.of(seconds[rows]).median * 1e3:.0f} ms",
        )
        files[rows].unlink()


def seconds_to_response(file: Path) -> float:
    """Start a server; return the time until a lookup succeeds."""
    port = free_port()
    start = time.perf_counter()
    with running(server(file, "--port", str(port))) as process:
        while not _responds(port):
            if process.poll() is not None:
                raise RuntimeError(f"the server of {file} ended with {process.returncode}")
            time.sleep(0.001)
        return time.perf_counter() - start


def _responds(port: int) -> bool:
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
    """Look up every token, in many requests, and read the memory of the processes."""
    tokens = workload.tokens
    requests = [tokens[start::LOOKUPS] for start in range(min(LOOKUPS, len(tokens)))]
    with smallfry.open(workload.file) as store:
        floats = store.baseline_nbytes["total"]
    size = workload.file.stat().st_size / 1e6
    with running_workers(workload.file, 1) as (port, process):
        look_up_all(port, requests)
        yield Comparison(
            MEMORY,
            f"PSS of the server after {len(requests):,} lookups of all {len(tokens):,} tokens, 2 bits",
            f"float32 and a dict: {floats / 1e6:,.0f} MB before any server",
            Spread.of([pss(process) / 1e6]),
            PSS_TARGET,
            at_least=False,
            unit="MB",
            took=f"of which the file {size:.0f} MB",
        )
    for workers in (2, 3):
        with running_workers(workload.file, workers) as (port, process):
            look_up_all(port, requests[: len(requests) // 10])
            private = [private_bytes(child) / 1e6 for child in children(process)]
        if len(private) != workers:
            raise RuntimeError(f"{len(private)} of {workers} workers run")
        yield Comparison(
            MEMORY,
            f"private memory of each of {workers} workers",
            "",
            Spread.of(private),
            PRIVATE_TARGET,
            at_least=False,
            unit="MB",
        )


@contextmanager
def running_workers(file: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Run a server for the duration of the block; yields its port and its process id."""
    port = free_port()
    command = server(file, "--port", str(port), "--workers", str(workers))
    with running(command, listening(port)) as process:
        yield port, process.pid


def look_up_all(port: int, requests: Sequence[list[str]]) -> None:
    """Send every request, over several connections at once."""

    def look_up(part: Sequence[list[str]]) -> int:
        with Client(f"http://127.0.0.1:{port}") as client:
            return sum(int(client.lookup(tokens).found.sum()) for tokens in part)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = sum(pool.map(look_up, [requests[first::CONNECTIONS] for first in range(CONNECTIONS)]))
    if found != sum(map(len, requests)):
        raise RuntimeError(f"the server found {found} of {sum(map(len, requests))} tokens")
