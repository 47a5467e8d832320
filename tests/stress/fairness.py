"""Load one worker with clients that read large responses as fast as they can, and use it meanwhile.

Prints how long health checks and small lookups take, how much memory the server holds, and how many large
responses it sends; then its memory while clients request the largest responses of each route and read none.
Exits with 1 if a response was wrong or lost, or a limit below was exceeded.

    python -m tests.stress.fairness --clients 128 --seconds 20 --out build/stress/fairness.json
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import multiprocessing
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import smallfry
from benchmarks.common.processes import free_port, listening, pss, running, server
from smallfry.compress import quantize
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

ROWS, DIM, TOKENS, TEXTS = 34_616, 300, 16_384, 2_048
PROBES = ("/livez", "/readyz", "/metrics")
#: Pauses between health checks, and between small lookups, in seconds.
PROBE_PAUSE, LOOKUP_PAUSE = 0.05, 0.02
#: Connections that read nothing, for each kind of response, and the seconds for which they stay.
UNREAD, UNREAD_SECONDS = 20, 3.0
#: Limits: seconds of a probe, p99 in seconds of a small lookup, bytes above idle.
SLOWEST_PROBE, SLOWEST_LOOKUP, MOST_MEMORY = 0.5, 0.1, 150e6
READERS = 2
TIMEOUT = 120.0
Times = list[float]


def main() -> None:
    """Run the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=128, help="clients that read large responses (128)")
    parser.add_argument("--seconds", type=float, default=20, help="duration of their load (20)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server (this one)")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "words.sfq")
        matrix = np.random.default_rng(0).standard_normal((ROWS, DIM), np.float32)
        sfq.write(file, quantize(matrix, 2), Vocabulary.build([f"word-{row}" for row in range(ROWS)]))
        del matrix
        port = free_port()
        # Isolated: the modules of the current folder are not those of another interpreter.
        command = [options.python, "-I", *server(file, "--port", str(port))[1:]]
        with running(command, listening(port)) as process:
            result = measure(process, port, file, options.clients, options.seconds)
    print(describe(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(int(bool(result["problems"])))


def measure(
    process: subprocess.Popen[bytes], port: int, file: Path, clients: int, seconds: float
) -> dict[str, Any]:
    """Run both parts of the test on one server."""
    rows = np.random.default_rng(1).integers(0, ROWS, TOKENS).tolist()
    body = json.dumps({"tokens": [f"word-{row}" for row in rows]}).encode()
    pool = ProcessPoolExecutor(READERS + 4, multiprocessing.get_context("fork"))
    with pool:
        look_up(port, file, 0.5, False)
        held = [pss(process.pid)]
        with sampling(process.pid) as samples:
            end = time.time() + seconds
            readers = [
                pool.submit(read_large, port, body, share, end)
                for share in np.diff(np.linspace(0, clients - 1, READERS + 1).astype(int)).tolist()
            ]
            checker = pool.submit(check_large, port, body, file, rows, end)
            time.sleep(min(1.0, seconds / 4))  # until all have sent their first request
            left = max(1.0, end - time.time())
            probes = pool.submit(probe, port, left)
            lookups = [pool.submit(look_up, port, file, left, again) for again in (False, True)]
            large = [latency for reader in readers for latency in reader.result()[0]] + checker.result()[0]
            received = sum(reader.result()[1] for reader in readers)
            wrong = checker.result()[1]
            probed: dict[str, Times] = probes.result()
            kept, new = (lookup.result() for lookup in lookups)
        time.sleep(8)  # memory is returned within seconds
        held += [max(samples), pss(process.pid)]
        unread = {
            name: measure_unread(process.pid, port, request) for name, request in requests(rows).items()
        }
        alive = look_up(port, file, 0.5, False)[1]
    result = {
        "clients": clients,
        "seconds": seconds,
        "probe_seconds": {path: quantiles(times) for path, times in probed.items()},
        "lookup_seconds": {"keep-alive": quantiles(kept[0]), "new connection": quantiles(new[0])},
        "large": quantiles(large) | {"mb_per_second": round(received / seconds / 1e6, 1)},
        "pss_mb": dict(zip(("idle", "peak", "after"), (round(size / 1e6, 1) for size in held), strict=True)),
        "unread_mb_above_idle": {name: round((most - held[0]) / 1e6, 1) for name, most in unread.items()},
    }
    checks = {
        "wrong large responses": wrong > 0,
        "wrong or lost small lookups": kept[1] + new[1] + alive > 0,
        "lost probes": any(max(times) == np.inf for times in probed.values()),
        f"a probe over {SLOWEST_PROBE} s": max(map(max, probed.values())) > SLOWEST_PROBE,
        f"p99 of small lookups over {SLOWEST_LOOKUP} s": any(
            np.quantile(times, 0.99) > SLOWEST_LOOKUP for times, _ in (kept, new)
        ),
        f"over {MOST_MEMORY / 1e6:g} MB above idle": max(held[1], *unread.values()) > held[0] + MOST_MEMORY,
    }
    return result | {"problems": [name for name, is_true in checks.items() if is_true]}


def requests(rows: Sequence[int]) -> dict[str, bytes]:
    """Return the requests with the largest responses, by name."""
    ids = json.dumps({"ids": list(rows)}).encode()
    texts = [f"word-{row}" for row in rows[:TEXTS]]
    return (
        {f"/lookup {accept}": post("/lookup", ids, accept) for accept in (JSON, RAW, SAFETENSORS, PACKED)}
        | {
            f"/v1/embeddings {encoding}": post(
                "/v1/embeddings",
                json.dumps({"model": "words", "input": texts, "encoding_format": encoding}).encode(),
                JSON,
            )
            for encoding in ("float", "base64")
        }
        | {"/models/{name}/file": b"GET /models/words/file HTTP/1.1\r\nhost: x\r\n\r\n"}
    )


def post(path: str, body: bytes, accept: str) -> bytes:
    """Return the bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\naccept: {accept}\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def read_large(port: int, body: bytes, clients: int, end: float) -> tuple[Times, int]:
    """Read chunked responses on several connections until a time; return the latency of each, and bytes."""
    request, buffer = post("/lookup", body, JSON), bytearray(1 << 18)
    latencies, received = [], 0
    selector = selectors.DefaultSelector()
    states: dict[socket.socket, tuple[float, bytes]] = {}

    def send(connection: socket.socket) -> None:
        connection.setblocking(True)
        connection.sendall(request)
        connection.setblocking(False)
        states[connection] = time.time(), b""

    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        selector.register(connection, selectors.EVENT_READ)
        send(connection)
    while time.time() < end:
        for key, _ in selector.select(0.1):
            connection = key.fileobj  # type: ignore[assignment]
            count = connection.recv_into(buffer)
            received += count
            begin, tail = states[connection]
            tail = (tail + buffer[max(0, count - 7) : count])[-7:]
            states[connection] = begin, tail
            if tail == b"\r\n0\r\n\r\n":
                latencies.append(time.time() - begin)
                send(connection)
            elif not count:
                raise ConnectionError("the server closed the connection of a client that reads")
    for connection in states:
        connection.close()
    return latencies, received


def check_large(port: int, body: bytes, file: Path, rows: Sequence[int], end: float) -> tuple[Times, int]:
    """Read large responses until a time, at least one; return latencies, and how many were wrong."""
    expected, latencies, wrong = "", [], 0
    vectors = smallfry.open(file).rows(rows)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
        while not latencies or time.time() < end:
            begin = time.time()
            connection.request("POST", "/lookup", body, {"content-type": JSON})
            content = connection.getresponse().read()
            latencies.append(time.time() - begin)
            digest = hashlib.sha256(content).hexdigest()
            if not expected:
                received = np.array(orjson.loads(content)["vectors"], np.float32)
                wrong += not np.array_equal(received, vectors)
                expected = digest
            wrong += digest != expected
    return latencies, wrong


def probe(port: int, seconds: float) -> dict[str, Times]:
    """Send health checks on new connections, one after the other on each path; return latencies by path."""
    end = time.monotonic() + seconds

    def repeat(path: str) -> Times:
        latencies = []
        while time.monotonic() < end:
            begin = time.monotonic()
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
            latencies.append(time.monotonic() - begin if response.status == 200 else np.inf)
            time.sleep(PROBE_PAUSE)
        return latencies

    with ThreadPoolExecutor(len(PROBES)) as threads:
        return dict(zip(PROBES, threads.map(repeat, PROBES), strict=True))


def look_up(port: int, file: Path, seconds: float, reconnect: bool) -> tuple[Times, int]:
    """Look up one token at a steady rate; return latencies since each was due, and how many were wrong.

    `reconnect` opens a new connection for each.
    """
    store, latencies, wrong = smallfry.open(file), [], 0
    drawn = np.random.default_rng(2)
    due = time.monotonic()
    end = due + seconds
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        row = int(drawn.integers(ROWS))
        connection.request("POST", "/lookup", json.dumps({"tokens": [f"word-{row}"]}), {"content-type": JSON})
        response = connection.getresponse()
        content = response.read()
        latencies.append(time.monotonic() - due)
        wrong += response.status != 200 or not _is_row(content, store.rows([row]))
        if reconnect:
            connection.close()
        due += LOOKUP_PAUSE
        if time.monotonic() > end + TIMEOUT:
            break
    connection.close()
    return latencies, wrong


def _is_row(content: bytes, expected: NDArray[np.float32]) -> bool:
    return np.array_equal(np.array(orjson.loads(content)["vectors"], np.float32), expected)


def measure_unread(pid: int, port: int, request: bytes) -> int:
    """Return the most memory of the server while connections send a request and read nothing."""
    connections = []
    with sampling(pid) as samples:
        for _ in range(UNREAD):
            connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
            connections.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            connection.sendall(request)
        time.sleep(UNREAD_SECONDS)
    for connection in connections:
        connection.close()
    return max(samples)


@contextmanager
def sampling(pid: int) -> Any:
    """Sample the proportional memory of a process ten times per second, into the list that it yields."""
    samples, stopped = [pss(pid)], Event()

    def sample() -> None:
        while not stopped.wait(0.1):
            samples.append(pss(pid))

    with ThreadPoolExecutor(1) as thread:
        running_: Future[None] = thread.submit(sample)
        try:
            yield samples
        finally:
            stopped.set()
            running_.result()


def quantiles(times: Times) -> dict[str, float]:
    """Return count, mean, median, 99th percentile and maximum."""
    if not times:
        return {"count": 0}
    named: dict[str, Callable[[Times], Any]] = {
        "mean": np.mean,
        "p50": np.median,
        "p99": lambda values: np.quantile(values, 0.99),
        "max": np.max,
    }
    return {"count": len(times)} | {name: round(float(take(times)), 4) for name, take in named.items()}


def describe(result: dict[str, Any]) -> str:
    """Return the results as text."""
    lines = [f"{result['clients']} clients that read {TOKENS:,} rows each as JSON, {result['seconds']:g} s"]
    timed = result["probe_seconds"] | result["lookup_seconds"] | {"large response": result["large"]}
    for name, times in timed.items():
        shown = "  ".join(
            f"{key} {times[key]:.3f} s" for key in ("p50", "p99", "mean", "max") if key in times
        )
        lines.append(f"  {name:16} {times['count']:6,}  {shown}")
    lines.append(f"  large responses: {result['large']['mb_per_second']} MB/s")
    lines.append("  PSS in MB: " + ", ".join(f"{name} {size}" for name, size in result["pss_mb"].items()))
    lines.append(f"{UNREAD} connections that read nothing, MB above idle")
    lines += [f"  {name:45} {size}" for name, size in result["unread_mb_above_idle"].items()]
    lines += [f"  PROBLEM: {problem}" for problem in result["problems"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
