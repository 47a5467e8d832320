"""Compare the server with Redis that holds the same vectors as float32: throughput, latency and memory.

All sides run on one machine, are called by one client program, and take turns. Tokens are drawn by their
frequency in English; rows are real vectors at the scale of published ones. Needs redis-server and wrk on the
path, the packages of the extra ``bench``, and the real data in the folder ``SMALLFRY_DATA``.

    python -m benchmarks.server.load --out results.json        # 400,000 rows: about five minutes
    python -m benchmarks.server.load --rows 20000 --rounds 2 --seconds 0.5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from operator import truediv
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import orjson
import redis
from numpy.typing import NDArray

from benchmarks.common import wrk
from benchmarks.common.comparison import Comparison, Spread, count_of, print_comparisons, speedup
from benchmarks.common.dataset import Matrix, draw_requests, read_tokens, write_file
from benchmarks.common.processes import cpu_seconds, free_port, listening, pss, running, server
from benchmarks.common.timing import Timing, take_turns
from benchmarks.server import ceiling
from benchmarks.server.redis_server import redis_lookup, redis_server
from smallfry.client import Client
from smallfry.client.base import Format

SIZES = (1, 32, 1000)
REQUESTS = 500
#: By size: requests/s of one connection against Redis, and of one worker against uvicorn without a lookup.
AGAINST_REDIS = {1: 0.75, 32: 1.1, 1000: 4.5}
AGAINST_UVICORN = {1: 0.75, 32: 0.7}
#: Processor time of a request with a JSON response, decoding and sending included, against orjson writing the
#: same vectors.
AGAINST_ORJSON = 0.5

COLUMNS = ("p50 ms", "p99 ms", "client µs", "server µs", "x Redis")

Lookup = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Result:
    """One side at one size of request.

    The processor time of a request compares the sides even if other programs disturb the machine.
    """

    timing: Timing
    client_us: float
    server_us: float
    times_redis: float


def main() -> None:
    """Run the comparison and print it."""
    options = parse_options()
    for program in ("redis-server", "wrk"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not on the path; this comparison needs it, please install it")
    tokens, shares = read_tokens(options.rows)
    requests = {size: draw_requests(tokens, shares, size, REQUESTS) for size in SIZES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "words.sfq"
        write_file(file, tokens, options.nbit)
        port, socket = free_port(), str(folder / "smallfry.sock")
        http = stack.enter_context(running(server(file, "--port", str(port)), listening(port)))
        url = f"http://127.0.0.1:{port}"
        # Every row is read before memory is measured, which is before a second process shares the pages.
        with Client(url) as client:
            client.rows(np.arange(options.rows))
        memory = {"file": file.stat().st_size, "smallfry": pss(http.pid)}
        unix = stack.enter_context(running(server(file, "--uds", socket), listening(socket)))
        database = stack.enter_context(redis_server(folder, tokens))
        memory["redis"] = pss(database.pid)
        dim = Matrix(options.rows).shape[1]
        sides = {
            "redis, tcp": redis_lookup(redis.Redis(port=database.port), dim),
            "redis, unix": redis_lookup(redis.Redis(unix_socket_path=database.socket), dim),
            "packed, tcp": smallfry_lookup(url, "packed"),
            "packed, unix": smallfry_lookup(f"unix://{socket}", "packed"),
            "float32, tcp": smallfry_lookup(url, "safetensors"),
            "float32, unix": smallfry_lookup(f"unix://{socket}", "safetensors"),
            "json, tcp": smallfry_lookup(url, "json"),
            "json, unix": smallfry_lookup(f"unix://{socket}", "json"),
        }
        servers = {"redis": database.pid, "tcp": http.pid, "unix": unix.pid}
        check_sides(sides, requests[max(SIZES)][0])
        lookups = {
            size: measure(sides, requests[size], servers, options.rounds, options.seconds) for size in SIZES
        }
        orjson_us = time_orjson(sides["json, tcp"], requests[max(SIZES)][0])
        under_wrk = ceiling.compare(folder, url, http.pid, requests, options.rounds, options.seconds)
    print_lookups(lookups)
    print_memory(memory)
    print_wrk(under_wrk)
    comparisons = list(compare(lookups, memory, under_wrk, orjson_us))
    print()
    print_comparisons(comparisons)
    if options.out:
        results = {
            "machine": {"system": platform.platform(), "cores": os.cpu_count()},
            "options": {"rows": options.rows, "dim": dim, "nbit": options.nbit, "rounds": options.rounds},
            "lookups": lookups,
            "memory": memory,
            "wrk": under_wrk,
            "targets": [comparison.as_json() for comparison in comparisons],
        }
        options.out.write_text(json.dumps(results, indent=2, default=asdict) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000, help="rows of the table (400,000)")
    parser.add_argument("--nbit", type=int, default=2, help="bits per value (2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of each side in each round (1)")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    return parser.parse_args()


def smallfry_lookup(url: str, format: Format) -> Lookup:
    """Return a function from tokens to their vectors."""
    client = Client(url, format=format)
    return lambda tokens: client.lookup(tokens).vectors


def check_sides(sides: dict[str, Lookup], tokens: list[str]) -> None:
    """Exit unless the server's sides agree to the bit, and Redis holds the vectors that were compressed."""
    vectors_of = {name: lookup(tokens) for name, lookup in sides.items()}
    original = vectors_of["redis, tcp"]
    for name, vectors in vectors_of.items():
        reference = original if name.startswith("redis") else vectors_of["packed, tcp"]
        if vectors.tobytes() != reference.tobytes():
            raise SystemExit(f"{name} returns other values than the side it is compared with")
    error = np.linalg.norm(vectors_of["packed, tcp"] - original) / np.linalg.norm(original)
    if error > 0.5:
        raise SystemExit(f"the server and Redis hold different vectors: relative error {error:.2f}")


def measure(
    sides: dict[str, Lookup], requests: list[list[str]], servers: dict[str, int], rounds: int, seconds: float
) -> dict[str, Result]:
    """Time all sides on the same requests, then measure the processor time of each."""

    def caller(lookup: Lookup) -> Callable[[], object]:
        following = cycle(requests)
        return lambda: lookup(next(following))

    calls = {name: caller(lookup) for name, lookup in sides.items()}
    timings = take_turns(calls, rounds, seconds)
    results = {}
    for name, timing in timings.items():
        way = name.partition(", ")[2]
        pid = servers["redis" if name.startswith("redis") else way]
        quotients = map(truediv, timings[f"redis, {way}"].round_medians, timing.round_medians)
        client_us, server_us = processor_time(calls[name], pid, seconds)
        results[name] = Result(timing, client_us, server_us, statistics.median(quotients))
    return results


def processor_time(call: Callable[[], object], pid: int, seconds: float) -> tuple[float, float]:
    """Return the processor time per call of this process and of the server, in microseconds."""
    before, count = (process_time(), cpu_seconds(pid)), 0
    end = perf_counter() + seconds
    while perf_counter() < end:
        call()
        count += 1
    after = process_time(), cpu_seconds(pid)
    return (after[0] - before[0]) / count * 1e6, (after[1] - before[1]) / count * 1e6


def time_orjson(lookup: Lookup, tokens: list[str]) -> float:
    """Return the processor time in which orjson writes the vectors of tokens, in microseconds.

    The median of some calls, each after a lookup: its caches are as cold as those of the server.
    """
    times = []
    for _ in range(15):
        vectors = lookup(tokens)
        before = process_time()
        orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
        times.append(process_time() - before)
    return statistics.median(times) * 1e6


def compare(
    lookups: dict[int, dict[str, Result]],
    memory: dict[str, int],
    under_wrk: dict[int, dict[str, Any]],
    orjson_us: float,
) -> Iterator[Comparison]:
    """Return the results with their targets."""
    for size, target in AGAINST_REDIS.items():
        for way in ("tcp", "unix"):
            ours, theirs = (lookups[size][f"{side}, {way}"].timing for side in ("packed", "redis"))
            what = f"requests/s of {count_of(size, 'token')}, packed, {way}"
            yield Comparison("speed", what, "Redis, float32", speedup(ours, theirs), target)
    size = max(lookups)
    taken = Spread.of([lookups[size]["json, tcp"].server_us / orjson_us])
    what = f"server's time for {size:,} tokens, JSON"
    yield Comparison("speed", what, "orjson, the vectors alone", taken, AGAINST_ORJSON, at_least=False)
    share = Spread.of([memory["smallfry"] / memory["redis"]])
    yield Comparison("memory", "memory, every row read", "Redis, float32", share, 0.25, at_least=False)
    rate = Spread.of([under_wrk[size]["tokens_per_second"] / 1e6])
    yield Comparison("speed", f"tokens/s of one worker, packed, {size:,} per request", "", rate, 2, unit="M")
    for size, target in AGAINST_UVICORN.items():
        row, bare = under_wrk[size], "the same uvicorn without a lookup"
        tokens = count_of(size, "token")
        yield Comparison("ceiling", f"requests/s under wrk, {tokens}", bare, Spread.of(row["shares"]), target)
        share = Spread.of([row["echo_us"] / row["service_us"]])
        yield Comparison("ceiling", f"requests per processor second, {tokens}", bare, share, target)


def print_lookups(lookups: dict[int, dict[str, Result]]) -> None:
    """Print one table for each size of request."""
    for size, results in lookups.items():
        print(f"\n{size:,} tokens per request, one connection; processor time of client and server in µs")
        print_row("", "requests/s", "(low-high round)", "tokens/s", *COLUMNS)
        for name, result in results.items():
            timing = result.timing
            print_row(
                name,
                f"{timing.requests_per_second:,.0f}",
                f"({timing.lowest:,.0f}-{timing.highest:,.0f})",
                f"{timing.requests_per_second * size:,.0f}",
                f"{timing.p50_ms:.3f}",
                f"{timing.p99_ms:.3f}",
                f"{result.client_us:,.0f}",
                f"{result.server_us:,.0f}",
                f"{result.times_redis:.2f}",
            )


def print_memory(memory: dict[str, int]) -> None:
    """Print the memory of the servers after every row was read."""
    print("\nproportional memory of the server after every row was read")
    for name in ("smallfry", "redis"):
        print(f"{name:16}{memory[name] / 1e6:10,.1f} MB")
    print(f"{'ratio':16}{memory['redis'] / memory['smallfry']:10.1f}")


def print_wrk(under_wrk: dict[int, dict[str, Any]]) -> None:
    """Print the load of one worker under wrk, next to the same server without a lookup."""
    print(f"\none worker under wrk, {wrk.CONNECTIONS} connections, packed; its processor time in µs")
    print_row("tokens", "requests/s", "(low-high round)", "tokens/s", "no lookup", "share", "µs", "no lookup")
    for size, row in under_wrk.items():
        print_row(
            f"{size:,}",
            f"{row['requests_per_second']:,.0f}",
            f"({row['lowest']:,.0f}-{row['highest']:,.0f})",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['without_lookup']:,.0f}",
            f"{statistics.median(row['shares']):.0%}",
            f"{row['service_us']:.1f}",
            f"{row['echo_us']:.1f}",
        )


def print_row(name: str, rate: str, spread: str, *rest: str) -> None:
    """Print one row of a table."""
    print(f"{name:16}{rate:>12}{spread:>20}" + "".join(f"{cell:>11}" for cell in rest))


if __name__ == "__main__":
    main()
