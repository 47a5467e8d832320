"""Measure what requests cost one worker: time of its event loop per byte, and memory per connection.

Each request of ``tests/attacks/costly.py`` is sent again and again over 16 connections. Reported are the
processor time of the event loop (the main thread) per byte and per request, that of other threads, and how
much of the former a small lookup waits for, which unlike a latency does not depend on what else runs on the
machine. Then follows the private memory above idle while 300 connections hold what they can. Lines over a
limit begin with ``!``.

    python -m tests.stress.bounds [PART OF A NAME ...]
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from benchmarks.common.dataset import write_random_file
from benchmarks.common.processes import cpu_seconds, free_port, listening, private_bytes, running, server
from tests.attacks.costly import COSTLY, HELD, request
from tests.attacks.sockets import is_fault, write_models

CONNECTIONS, SECONDS, PAUSE = 16, 1.0, 0.01
HOLDERS, HOLD_SECONDS, SETTLE = 300, 3.0, 30.0
#: Limits: microseconds of event loop per byte, milliseconds of it before a small lookup (p99), memory.
PER_BYTE, WAIT, MEMORY = 5.0, 50.0, 64 << 20
TIMEOUT = 60.0
LOOKUP = request(
    "POST /lookup", "content-type:application/json", "x-api-key:key-0", body=b'{"model":"small","ids":[0]}'
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("only", nargs="*", help="only rows whose name contains one of these")
    only = parser.parse_args().only

    def chosen(name: str) -> bool:
        return not only or any(part in name for part in only)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        with serving(folder) as (pid, port):
            measure_costs("open", pid, port, {k: v for k, v in COSTLY.items() if chosen(k)})
        with serving(folder, SMALLFRY_API_KEYS=",".join(f"key-{n}" for n in range(100))) as (pid, port):
            measure_costs("no key", pid, port, {k: v for k, v in COSTLY.items() if chosen(k)})
        for number in range(97):
            write_random_file(folder / f"model-{number}.sfq", 12)
        gets = {k: v for k, v in COSTLY.items() if k.startswith("/") and chosen(k)}
        with serving(folder) as (pid, port):
            measure_costs("100 models", pid, port, gets)
        with serving(folder) as (pid, port):
            idle = private_bytes(pid)
            for held, sent in HELD.items():
                if chosen(f"held: {held}"):
                    report_memory(held, idle, pid, port, sent)
        certificate = make_certificate(folder)
        with serving(folder, "--ssl-certfile", certificate, "--ssl-keyfile", certificate) as (pid, port):
            idle = private_bytes(pid)
            for held, sent in handshakes().items():
                if chosen(f"held: {held}"):
                    report_memory(held, idle, pid, port, sent)
            for held in ("nothing", "head of tiny fields", "body, 100 KB", "unread: JSON"):
                if chosen(f"held: TLS, {held}"):
                    report_memory(f"TLS, {held}", idle, pid, port, HELD[held], shake_hands)


@contextmanager
def serving(folder: Path, *options: str, **environ: str) -> Iterator[tuple[int, int]]:
    """Run a server with one worker; yield its process and port."""
    port = free_port()
    os.environ |= environ
    with tempfile.TemporaryFile() as log:
        command = server(folder, "--port", str(port), "--log-level", "critical", *options)
        with running(command, listening(port), stderr=log) as process:
            for name in environ:
                del os.environ[name]
            yield process.pid, port
        log.seek(0)
        text = log.read().decode()
        if process.returncode or text:
            print(f"! the server exited with {process.returncode}: {text[-2000:]}", flush=True)


class Cost(NamedTuple):
    """What one kind of request costs."""

    requests: int
    loop: float
    others: float
    waits: list[float]
    statuses: Counter[int]


def measure_costs(state: str, pid: int, port: int, requests: dict[str, bytes]) -> None:
    """Measure and print all costs."""
    probe = measure(pid, port, LOOKUP, connections=1)
    per_probe = probe.loop / max(1, probe.requests + len(probe.waits))
    titles = ("us/byte", "us/request", "other us", "wait p99", "most ms")
    print(f"\n{state}; small lookup: {1e6 * per_probe:.0f} us", flush=True)
    print(f"{'request':33} {'bytes':>9} ", *(f"{title:>10}" for title in titles), " statuses")
    for name, sent in requests.items():
        cost = measure(pid, port, sent)
        loop = max(0.0, cost.loop - per_probe * len(cost.waits))
        p99, most = (1e3 * np.quantile(cost.waits, (0.99, 1))).tolist()
        per_request = 1e6 * loop / max(1, cost.requests)
        per_byte = per_request / len(sent)
        over = per_byte > PER_BYTE or p99 > WAIT or any(map(is_fault, cost.statuses))
        numbers = (per_byte, per_request, 1e6 * cost.others / max(1, cost.requests), p99, most)
        shown = "".join(f" {number:10,.2f}" for number in numbers)
        print(f"{'!' if over else ' '}{name:32} {len(sent):9,} {shown}  {dict(cost.statuses)}", flush=True)


def measure(pid: int, port: int, sent: bytes, connections: int = CONNECTIONS) -> Cost:
    """Send a request again and again over several connections, next to a client with small lookups."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    prober = context.Process(target=look_up, args=(pid, port, theirs))
    prober.start()
    ours.recv()
    statuses: Counter[int] = Counter()
    counts = [0] * connections
    end = time.monotonic() + SECONDS
    threads = [
        threading.Thread(target=repeat, args=(port, sent, end, statuses, counts, number))
        for number in range(connections)
    ]
    loop, total = loop_seconds(pid), cpu_seconds(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop, total = loop_seconds(pid) - loop, cpu_seconds(pid) - total
    ours.send(None)
    waits = ours.recv()
    prober.join()
    return Cost(sum(counts), loop, max(0.0, total - loop), waits, statuses)


def repeat(
    port: int, sent: bytes, end: float, statuses: Counter[int], counts: list[int], number: int
) -> None:
    """Send a request, or several at once, and read the responses until a time."""
    expected, method = sent.count(b" HTTP/1.1\r\n"), sent.partition(b" ")[0]
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            responses = connection.makefile("rb")
            closed = False
            while not closed and time.monotonic() < end:
                with suppress(OSError):
                    connection.sendall(sent)
                counts[number] += 1
                for _ in range(expected):
                    status, closed = read_response(responses, method)
                    statuses[status] += 1
                    if closed:
                        break


def read_response(responses: IO[bytes], method: bytes) -> tuple[int, bool]:
    """Read a response; return its status, 0 if there is none, and whether it is the connection's last."""
    with suppress(OSError):
        line = responses.readline()
        headers = http.client.parse_headers(responses)
        size = int(headers.get("content-length", 0))
        if headers.get("transfer-encoding"):
            while size := int(responses.readline(), 16):
                responses.read(size + 2)
            size = 2
        if method != b"HEAD":
            responses.read(size)
        if line:
            return int(line.split()[1]), headers.get("connection") == "close"
    return 0, True


def look_up(pid: int, port: int, pipe: Connection) -> None:
    """Look up one row again and again; send how much the event loop did for others while each waited."""
    waits = []
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(LOOKUP)
        connection.recv(1 << 16)
        pipe.send(None)
        while not pipe.poll(PAUSE):
            begin = loop_seconds(pid)
            connection.sendall(LOOKUP)
            if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200"):
                waits.append(TIMEOUT)
                continue
            waits.append(loop_seconds(pid) - begin)
    pipe.send(waits or [0.0])


def loop_seconds(pid: int) -> float:
    """Return the processor time of a worker's event loop, which runs in its main thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


Wrap = Callable[[socket.socket], socket.socket]


def report_memory(
    name: str, idle: int, pid: int, port: int, sent: bytes, wrap: Wrap = lambda raw: raw
) -> None:
    """Measure and print the memory of connections that send, and then neither send nor read more."""
    most = measure_memory(pid, port, [sent] * HOLDERS, wrap) - idle
    after = settle(pid, idle)
    shown = f"{most / 2**20:7.1f} MB, afterwards {after / 2**20:6.1f}"
    print(
        f"{'!' if max(most, after) > MEMORY else ' '}held: {name:31} {len(sent):9,} bytes: {shown}",
        flush=True,
    )


def measure_memory(pid: int, port: int, sent: list[bytes], wrap: Wrap = lambda raw: raw) -> int:
    """Return the most private memory of a server while connections hold what they have sent."""
    most, stopped = [0], threading.Event()

    def sample() -> None:
        while not stopped.wait(0.02):
            most[0] = max(most[0], private_bytes(pid))

    def hold(data: bytes) -> None:
        with suppress(OSError), socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.settimeout(HOLD_SECONDS)
            raw.connect(("127.0.0.1", port))
            connection = wrap(raw)
            with suppress(OSError):
                connection.sendall(data)
            stopped.wait(TIMEOUT)

    sampler = threading.Thread(target=sample)
    sampler.start()
    holders = [threading.Thread(target=hold, args=(data,)) for data in sent]
    for holder in holders:
        holder.start()
    time.sleep(2 * HOLD_SECONDS)
    stopped.set()
    for thread in (sampler, *holders):
        thread.join()
    return most[0]


def settle(pid: int, idle: int) -> int:
    """Wait until the memory is returned, for some seconds; return how much is not."""
    end = time.monotonic() + SETTLE
    while (held := private_bytes(pid) - idle) > 8 << 20 and time.monotonic() < end:
        time.sleep(0.2)
    return held


def make_certificate(folder: Path) -> str:
    """Write a certificate and its key into one file; return its path."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return str(certificate)


def handshakes() -> dict[str, bytes]:
    """Return the beginnings of TLS handshakes."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _context().wrap_bio(received, sent).do_handshake()
    hello = sent.read()
    return {"TLS, no handshake": b"", "TLS, half a message": hello[:-1], "TLS, half a handshake": hello}


def shake_hands(raw: socket.socket) -> socket.socket:
    """Return a TLS connection over a socket."""
    return _context().wrap_socket(raw)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


if __name__ == "__main__":
    main()
