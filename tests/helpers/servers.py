"""A real server in its own process, reached over a socket, and files for it to serve."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import numpy as np

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.forked import ForkedServer
from tests.helpers.tables import PARTS, random_table

#: Variables that a forked server would not read.
READ_AT_START = {"SMALLFRY_NATIVE", "SMALLFRY_SIMD", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD"}

TOKENS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "Ünïcode",
    "with space",
    "nul\0byte",
    "🎉",
    "<pad>",
    "x" * 300,
]


class Server:
    """A running ``smallfry-serve`` and a client of it.

    Each path among the arguments is served. The port is a free one unless ``--port`` or ``--uds`` is given.
    `forked` servers start fast, and share memory with the process that they are forked from.
    """

    def __init__(self, *arguments: str | Path, forked: bool = False, **environ: str) -> None:
        options = flags(arguments)
        if not {"--port", "--uds"} & set(arguments):
            options += ["--port", "0"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SMALLFRY_")}
        environ = inherited | {"SMALLFRY_DRAIN_DELAY": "0"} | environ
        self.process: ForkedServer | subprocess.Popen[str]
        if forked and not READ_AT_START & environ.keys():
            self.process = ForkedServer(options, environ)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environ,
            )
        assert self.process.stdout is not None
        self.banner: list[str] = []
        for line in self.process.stdout:
            self.banner.append(line.rstrip("\n"))
            if line.startswith("try: "):
                break
        if self.process.poll() is not None or not self.banner:
            raise RuntimeError(self.process.communicate()[1])
        address = next(line for line in self.banner if line.startswith("listening on ")).split()[-1]
        path = address.removeprefix("unix:")
        transport = httpx.HTTPTransport(uds=path) if path != address else None
        self.address = address
        self.client = httpx.Client(
            base_url="http://localhost" if path != address else address, transport=transport, timeout=30
        )

    def lookup(self, query: Any, **headers: str) -> httpx.Response:
        return self.client.post("/lookup", json=query, headers=headers)

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit code and the log."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


def flags(arguments: Iterable[str | Path]) -> list[str]:
    """Return the command line that serves the paths among the arguments."""
    line: list[str] = []
    for argument in arguments:
        line += ["--embeddings", str(argument)] if isinstance(argument, Path) else [argument]
    return line


def starting() -> Iterator[Callable[..., Server]]:
    """Yield a function that starts servers in new processes; stop them all afterwards."""
    yield from _starting(forked=False)


def forking() -> Iterator[Callable[..., Server]]:
    """Yield a function that forks servers; stop them all afterwards."""
    yield from _starting(forked=True)


def _starting(*, forked: bool) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def starter(*arguments: str | Path, **environ: str) -> Server:
        servers.append(Server(*arguments, forked=forked, **environ))
        return servers[-1]

    yield starter
    for server in servers:
        server.process.terminate()
    for server in servers:
        server.stop()


def write_sfq(
    path: Path,
    rows: int = len(TOKENS),
    dim: int = 7,
    nbit: int = 4,
    kind: str | None = None,
    *,
    seed: int = 0,
    tokens: bool = True,
) -> Path:
    """Write a small table whose row of ``<pad>`` is zeros; with a kind, random codes and all parts."""
    matrix = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    names = (TOKENS + [f"token-{row}" for row in range(len(TOKENS), rows)])[:rows]
    matrix[names.index("<pad>")] = 0
    if kind is None:
        table = quantize(matrix, nbit)
    else:
        table = random_table(rows, dim, nbit, kind, seed=seed, parts=PARTS)
    sfq.write(path, table, Vocabulary.build(names) if tokens else None)
    return path


def eventually(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until a condition is true."""
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, f"not within {seconds} s"


#: A body that takes a slot of the large requests.
LARGE_BODY = b'{"tokens": ["the"]}' + b" " * (1 << 17)


class SlowRequest:
    """A request whose last byte has not been sent; a large one takes a slot of the large requests."""

    def __init__(self, server: Server, body: bytes = LARGE_BODY) -> None:
        host, port = server.address.removeprefix("http://").split(":")
        self._rest = body[-1:]
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body[:-1])

    def finish(self) -> bytes:
        """Send the last byte; return the response."""
        self._socket.sendall(self._rest)
        return self.read()

    def read(self) -> bytes:
        """Return the response without sending the last byte."""
        with self._socket.makefile("rb") as response:
            head = b"".join(iter(response.readline, b"\r\n"))
            return head + response.read(int(head.partition(b"content-length: ")[2].split()[0]))

    def close(self) -> None:
        self._socket.close()
