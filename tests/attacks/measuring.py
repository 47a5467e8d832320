"""What clients cost a server with one worker: time of its event loop, and memory."""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.processes import cpu_seconds, unshared_bytes
from tests.attacks.costly import request

#: Limits: microseconds of event loop per byte of a request and of its response, milliseconds of it before a
#: small lookup, and bytes of memory above idle for all connections together.
PER_BYTE, PER_BYTE_RECEIVED, WAIT, MEMORY = 5.0, 0.01, 50.0, 64 << 20
CONNECTIONS = 300

_CLIENTS, _PAUSE, _TIMEOUT = 16, 0.01, 60.0
_FIELDS = "content-type:application/json", "x-api-key:key-0"
_LOOKUP = request("POST /lookup", *_FIELDS, body=b'{"model":"small","ids":[0]}')

Wrap = Callable[[socket.socket], socket.socket]


class Cost(NamedTuple):
    """What one kind of request costs: bytes, microseconds, and milliseconds that small lookups wait."""

    sent: int
    received: float
    loop: float
    others: float
    waits: list[float]
    statuses: Counter[int]

    @property
    def per_byte(self) -> float:
        """Microseconds of event loop per byte of the request, beyond those for the bytes of the response."""
        return (self.loop - PER_BYTE_RECEIVED * self.received) / self.sent

    @property
    def wait(self) -> float:
        """Milliseconds of event loop that 99 of 100 small lookups wait for, at most."""
        return float(np.quantile(self.waits, 0.99))


def measure_cost(pid: int, port: int, sent: bytes, seconds: float = 1.0) -> Cost:
    """Send a request over 16 connections, for some seconds, next to a client with small lookups.

    The event loop runs in the main thread. What it does while a lookup waits is, unlike the latency,
    independent of what else runs on the machine.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    prober = context.Process(target=_look_up, args=(pid, port, theirs))
    prober.start()
    per_lookup = ours.recv()
    statuses: Counter[int] = Counter()
    counts = np.zeros((_CLIENTS, 2), np.int64)
    end = time.monotonic() + seconds
    clients = [threading.Thread(target=_repeat, args=(port, sent, end, statuses, row)) for row in counts]
    loop, total = loop_seconds(pid), cpu_seconds(pid)
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    loop, total = loop_seconds(pid) - loop, cpu_seconds(pid) - total
    ours.send(None)
    waits = ours.recv()
    prober.join()
    requests, received = np.maximum(1, counts.sum(axis=0)).tolist()
    others = max(0.0, total - loop)
    loop -= per_lookup * len(waits)
    return Cost(
        len(sent),
        received / requests,
        1e6 * loop / requests,
        1e6 * others / requests,
        [1e3 * wait for wait in waits],
        statuses,
    )


def _repeat(port: int, sent: bytes, end: float, statuses: Counter[int], counts: NDArray[np.int64]) -> None:
    """Send a request, or several at once, and read the responses until a time."""
    expected, method = sent.count(b" HTTP/1.1\r\n"), sent.partition(b" ")[0]
    while not counts[0] or time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection:
            responses = connection.makefile("rb")
            closed = False
            while not closed and (not counts[0] or time.monotonic() < end):
                with suppress(OSError):
                    connection.sendall(sent)
                counts[0] += 1
                for _ in range(expected):
                    status, size, closed = _read(responses, method)
                    statuses[status] += 1
                    counts[1] += size
                    if closed:
                        break


def _read(responses: IO[bytes], method: bytes) -> tuple[int, int, bool]:
    """Read a response; return its status, 0 if there is none, its bytes, and whether it is the last one."""
    with suppress(OSError):
        line = responses.readline()
        headers = http.client.parse_headers(responses)
        body = 0
        if headers.get("transfer-encoding"):
            while size := int(responses.readline(), 16):
                body += len(responses.read(size + 2))
            responses.readline()
        elif method != b"HEAD":
            body = len(responses.read(int(headers.get("content-length", 0))))
        if line:
            return int(line.split()[1]), body, headers.get("connection") == "close"
    return 0, 0, True


def _look_up(pid: int, port: int, pipe: Connection) -> None:
    """Look up one row again and again; send how long the event loop worked while each waited."""
    waits: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection:

        def look_up() -> None:
            connection.sendall(_LOOKUP)
            response = connection.recv(1 << 16)
            if response[9:12] not in (b"200", b"401"):
                raise RuntimeError(f"the response to a small lookup is {response!r}")

        look_up()
        begin = loop_seconds(pid)
        for _ in range(50):
            look_up()
        pipe.send((loop_seconds(pid) - begin) / 50)
        while not waits or not pipe.poll(_PAUSE):
            begin = loop_seconds(pid)
            look_up()
            waits.append(loop_seconds(pid) - begin)
    pipe.send(waits)


def loop_seconds(pid: int) -> float:
    """Return the processor time of a worker's main thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure_memory(
    pid: int, port: int, sent: bytes, seconds: float, wrap: Wrap = lambda raw: raw, count: int = CONNECTIONS
) -> int:
    """Return the most memory of a server while connections hold what they have sent, unread.

    `seconds` count from when all have sent, or can send no more.
    """
    most, stopped = 0, threading.Event()
    blocked = threading.Semaphore(0)

    def hold() -> None:
        with suppress(OSError), socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.settimeout(seconds)
            raw.connect(("127.0.0.1", port))
            connection = wrap(raw)
            with suppress(OSError):
                for begin in range(0, len(sent), 1 << 16):
                    connection.sendall(sent[begin : begin + (1 << 16)])
            blocked.release()
            stopped.wait(_TIMEOUT)
            return
        blocked.release()

    holders = [threading.Thread(target=hold) for _ in range(count)]
    for holder in holders:
        holder.start()
    sending, end = count, time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        most = max(most, unshared_bytes(pid))
        if sending and blocked.acquire(timeout=0.02):
            sending -= 1
            if not sending:
                end = time.monotonic() + seconds
        elif not sending:
            time.sleep(0.02)
    stopped.set()
    for holder in holders:
        holder.join()
    return most


def shake_hands(raw: socket.socket) -> socket.socket:
    """Return a TLS connection over a socket."""
    return _tls().wrap_socket(raw)


def handshakes() -> dict[str, bytes]:
    """Return the beginnings of TLS handshakes."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _tls().wrap_bio(received, sent).do_handshake()
    hello = sent.read()
    return {"TLS, no handshake": b"", "TLS, half a message": hello[:-1], "TLS, half a handshake": hello}


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
