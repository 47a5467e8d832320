"""Redis with float32 vectors, fetched by MGET."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.common.dataset import CHUNK, Matrix
from benchmarks.common.processes import free_port, listening, running


@dataclass(frozen=True)
class RedisServer:
    """A running Redis: its process, its port and its unix socket."""

    pid: int
    port: int
    socket: str


@contextmanager
def redis_server(folder: Path, tokens: list[str]) -> Iterator[RedisServer]:
    """Run Redis for the duration of the block, without persistence, with one float32 vector per token."""
    port, socket = free_port(), str(folder / "redis.sock")
    command = ["redis-server", "--port", str(port), "--unixsocket", socket]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running(command, listening(port), listening(socket)) as process:
        client = redis.Redis(unix_socket_path=socket)
        for start, chunk in zip(range(0, len(tokens), CHUNK), Matrix(len(tokens)), strict=True):
            client.mset(dict(zip(tokens[start : start + CHUNK], map(np.ndarray.tobytes, chunk), strict=True)))
        client.close()
        yield RedisServer(process.pid, port, socket)


def redis_lookup(client: redis.Redis, dim: int) -> Callable[[list[str]], NDArray[np.float32]]:
    """Return a function from tokens to their vectors."""
    absent = bytes(4 * dim)

    def lookup(tokens: list[str]) -> NDArray[np.float32]:
        values = client.mget(tokens)
        return np.frombuffer(b"".join([value or absent for value in values]), np.float32).reshape(-1, dim)

    return lookup
