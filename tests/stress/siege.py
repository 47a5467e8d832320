"""Run every attack of ``tests/attacks/sockets.py`` at full strength on one server, one after the other.

Prints for each the statuses of the responses, the latencies of an honest client before and meanwhile, and the
server's memory before, at most and after it. Exits with 1 if the server responded with an error of its own
(5xx), an honest client got no right response, or a process failed.

    python -m tests.stress.siege --scale 40 --out build/stress/siege.json
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.processes import (
    ROOT,
    free_port,
    listening,
    module,
    private_bytes,
    running,
    server,
)
from tests.attacks.sockets import ATTACKS, MAX_BODY, Target, is_fault, write_models

PATIENCE = 5.0
QUIET_SECONDS = 2.0
BODY = json.dumps({"tokens": ["word-0", "word-1"], "model": "small"})
Latencies = list[float]


def main() -> None:
    """Attack one server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=40, help="strength; 40 opens 10,000 connections (40)")
    parser.add_argument("--only", choices=ATTACKS, action="append", help="only this attack; repeatable")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--honest", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.honest:
        send_honestly(options.honest)
        return
    os.environ["SMALLFRY_ADMIN_KEY"] = "the-admin-key"
    port = free_port()
    limits = ("--request-timeout", str(PATIENCE), "--max-body", str(MAX_BODY), "--log-level", "critical")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        write_models(Path(folder))
        command = server(Path(folder), "--port", str(port), *limits)
        with running(command, listening(port), stderr=log) as process:
            results = [siege(process.pid, port, name, options.scale) for name in options.only or ATTACKS]
        log.seek(0)
        failed = b"Traceback" in log.read() or bool(process.returncode)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(int(failed or any(result["failed"] for result in results)))


def siege(pid: int, port: int, name: str, scale: int) -> dict[str, Any]:
    """Run one attack, print its results and return them."""
    before = Honest(port)
    time.sleep(QUIET_SECONDS)
    quiet, wrong = before.stop()
    start, peak = private_bytes(pid), Peak(pid)
    honest, begin = Honest(port), time.monotonic()
    statuses: Counter[int] = Counter()
    while time.monotonic() < begin + QUIET_SECONDS:
        statuses += asyncio.run(attack(name, port, scale))
    seconds = time.monotonic() - begin
    meanwhile, wrong_meanwhile = honest.stop()
    most = peak.stop()
    time.sleep(QUIET_SECONDS)
    wrong += wrong_meanwhile
    result = {
        "attack": name,
        "seconds": round(seconds, 1),
        "statuses": dict(sorted(statuses.items())),
        "p50_p99_ms_before": milliseconds(quiet),
        "p50_p99_ms_during": milliseconds(meanwhile),
        "responses": len(meanwhile),
        "wrong": wrong,
        "mb_before_peak_after": [size >> 20 for size in (start, most, private_bytes(pid))],
        "failed": bool(wrong) or any(map(is_fault, statuses)),
    }
    print(json.dumps(result), flush=True)
    return result


async def attack(name: str, port: int, scale: int) -> Counter[int]:
    """Run one attack to its end."""
    return await ATTACKS[name](Target("127.0.0.1", port, scale, PATIENCE))


class Honest:
    """An honest client in a separate process."""

    def __init__(self, port: int) -> None:
        command = module("tests.stress.siege", "--honest", str(port))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # its first response

    def stop(self) -> tuple[Latencies, int]:
        """Stop it; return the latencies in seconds, and the number of wrong or lost responses."""
        output, _ = self._process.communicate(timeout=120)
        latencies, wrong = json.loads(output)
        return latencies, wrong


def send_honestly(port: int) -> None:
    """Send at most 200 requests per second, often over new connections, until standard input ends."""
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    latencies, wrong, expected = [], 0, b""
    while not stopped.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(20):
            begin = time.perf_counter()
            try:
                connection.request("POST", "/lookup", BODY, {"content-type": "application/json"})
                response = connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                wrong += 1
                break
            latencies.append(time.perf_counter() - begin)
            if not expected:
                expected = response
                print("ready", flush=True)
            wrong += response != expected
            stopped.wait(0.005)
        connection.close()
    print(json.dumps([latencies, wrong]))


class Peak:
    """The largest private memory of a server, sampled ten times per second."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._stopped = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling; return the peak in bytes."""
        self._stopped.set()
        self._thread.join()
        return self._most

    def _sample(self) -> None:
        while not self._stopped.wait(0.1):
            self._most = max(self._most, private_bytes(self._pid))


def milliseconds(latencies: Latencies) -> list[float]:
    """Return median and 99th percentile in milliseconds."""
    return np.round(1e3 * np.quantile(latencies, (0.5, 0.99)), 1).tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
