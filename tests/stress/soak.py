"""Check every response of a server under load: at rest, while files are replaced, and while it stops.

Each response is compared with the expected bytes of the file whose digest it names. Exits with 1 if any
request failed or any response was wrong.

    python -m tests.stress.soak --requests 100000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

import smallfry
from benchmarks.common.processes import free_port, listening, running, server
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

ROWS, DIM, NBIT = 5000, 50, 4
QUERIES, TOKENS = 200, 32
REPLACE_SECONDS = 0.05
RAW = "application/octet-stream"

Expected = dict[str, list[bytes]]


@dataclass
class Tally:
    """Result of a run."""

    checked: int = 0
    digests: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Run all scenarios and print the result of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000, help="responses per scenario (100,000)")
    parser.add_argument("--connections", type=int, default=16, help="concurrent connections (16)")
    parser.add_argument("--workers", type=int, default=4, help="workers of the server (4)")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.connections)
        for name, workers, replacing, stopping in (
            ("steady", options.workers, False, False),
            ("files replaced", 1, True, False),
            ("files replaced", options.workers, True, False),
            ("stopped", 1, False, True),
            ("stopped", options.workers, False, True),
        ):
            begin = time.perf_counter()
            tally = asyncio.run(
                soak.run(options.requests, workers=workers, replacing=replacing, stopping=stopping)
            )
            seconds = time.perf_counter() - begin
            print(
                f"{name}, {workers} worker(s): {tally.checked:,} responses checked, "
                f"{len(tally.problems)} wrong or lost, {len(tally.digests)} files seen, "
                f"{tally.checked / seconds:,.0f}/s"
            )
            for problem, count in Counter(tally.problems).most_common(5):
                print(f"  {count} x {problem}")
            failed |= bool(tally.problems) or not tally.checked
    sys.exit(int(failed))


class Soak:
    """Two files with the same tokens, the queries, and the expected response bytes of each file."""

    def __init__(self, folder: Path, connections: int, model: str | None = None) -> None:
        self._folder = folder
        self._connections = connections
        tokens = [f"token-{row}" for row in range(ROWS)]
        random = np.random.default_rng(0)
        queries = [[tokens[row] for row in rows] for rows in random.integers(0, ROWS, (QUERIES, TOKENS))]
        self._queries = [make_request(query, model) for query in queries]
        self._expected: Expected = {}
        self._versions = []
        for seed in range(2):
            path = folder / f"version-{seed}"
            matrix = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)
            sfq.write(path, quantize(matrix, NBIT), Vocabulary.build(tokens))
            store = smallfry.open(path)
            self._versions.append(path)
            self._expected[store.digest] = [store.lookup(query)[0].tobytes() for query in queries]

    async def run(self, requests: int, *, workers: int, replacing: bool, stopping: bool) -> Tally:
        """Send requests over several connections, and meanwhile replace the file or stop the server."""
        served = self._folder / "served.sfq"
        self._replace(served, 0)
        port = free_port()
        options = ("--port", str(port), "--log-level", "error", "--workers", str(workers))
        with running(server(served, *options), listening(port)) as process:
            tally = Tally()
            clients = [
                asyncio.create_task(self._send(port, tally, requests, may_end=stopping))
                for _ in range(self._connections)
            ]
            turn = 0
            while not all(client.done() for client in clients):
                await asyncio.sleep(REPLACE_SECONDS)
                if replacing:
                    turn += 1
                    self._replace(served, turn % 2)
                    process.send_signal(signal.SIGHUP)
                if stopping and tally.checked > requests // 2 and not turn:
                    turn = 1
                    process.send_signal(signal.SIGTERM)
            await asyncio.gather(*clients)
        return tally

    def _replace(self, served: Path, version: int) -> None:
        copy = served.with_suffix(".new")
        copy.write_bytes(self._versions[version].read_bytes())
        os.replace(copy, served)

    async def _send(self, port: int, tally: Tally, requests: int, *, may_end: bool) -> None:
        """Send requests until enough responses are checked; reconnect when the server closes."""
        while tally.checked < requests:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                if not may_end:
                    tally.problems.append("connection refused")
                return
            with suppress(ConnectionClosed):
                while tally.checked < requests:
                    await self._check(reader, writer, tally)
            writer.close()

    async def _check(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally) -> None:
        number = tally.checked % QUERIES
        writer.write(self._queries[number])
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError, KeyError) as error:
            tally.problems.append(f"incomplete response: {type(error).__name__}")
            raise ConnectionClosed from None
        tally.checked += 1
        digest = headers.get("x-smallfry-digest", "")
        tally.digests[digest] += 1
        if not head.startswith("HTTP/1.1 200"):
            tally.problems.append(head.partition("\r\n")[0])
        elif body != self._expected[digest][number]:
            tally.problems.append("wrong response")
        if headers.get("connection") == "close":
            raise ConnectionClosed


class ConnectionClosed(Exception):
    """The server closes the connection."""


def make_request(tokens: list[str], model: str | None) -> bytes:
    """Return the bytes of a lookup request, in the given or the only model."""
    body = orjson.dumps({"tokens": tokens} if model is None else {"tokens": tokens, "model": model})
    head = (
        "POST /lookup HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"accept: {RAW}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    main()
