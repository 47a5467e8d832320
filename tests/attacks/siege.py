"""Let every attack of ``sockets.py`` loose on a server at full strength, one after the other, and measure.

For each: what it was answered with, how long an honest client waited before and meanwhile, and what memory
the server held at most and in the end. Exits with 1 if the server answered with a fault of its own, an honest
client got no right answer, or a process ended.

    python tests/attacks/siege.py --scale 40
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "service"))

from serving import Server, write_sfq
from sockets import ATTACKS, MAX_BODY, Target

PATIENCE = 5.0
QUIET_SECONDS = 2.0
BODY = json.dumps({"tokens": ["the", "cat"], "model": "small"})
Latencies = list[float]


def main() -> None:
    """Besiege one server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=40, help="40: 10,000 idle connections")
    parser.add_argument("--only", choices=ATTACKS, action="append", help="this attack; repeatable")
    parser.add_argument("--honest", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.honest:
        ask_honestly(options.honest)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_sfq(Path(folder, "small.sfq"))
        write_sfq(Path(folder, "large.sfq"), 5000, 300, 2)
        limits = ("--request-timeout", str(PATIENCE), "--max-body", str(MAX_BODY), "--log-level", "critical")
        server = Server("--embeddings", folder, "--port", "0", *limits, SMALLFRY_ADMIN_KEY="the-admin-key")
        try:
            faults = [besiege(server, name, options.scale) for name in options.only or ATTACKS]
        finally:
            code, log = server.stop()
    sys.exit(int(any(faults) or bool(code) or "Traceback" in log))


def besiege(server: Server, name: str, scale: int) -> bool:
    """Run one attack, print what came of it, and say whether anything was wrong."""
    port = int(server.address.rpartition(":")[2])
    before = Honest(port)
    time.sleep(QUIET_SECONDS)
    quiet, wrong = before.end()
    start, peak = private(server), Peak(server)
    honest, begin = Honest(port), time.monotonic()
    statuses: Counter[int] = Counter()
    while time.monotonic() < begin + QUIET_SECONDS:
        statuses += asyncio.run(attack(name, port, scale))
    seconds = time.monotonic() - begin
    meanwhile, wrong_meanwhile = honest.end()
    most = peak.end()
    time.sleep(QUIET_SECONDS)
    say(
        f"{name}: {seconds:.0f} s, statuses {dict(sorted(statuses.items()))}; honest p50/p99 {ms(quiet)} "
        f"before, {ms(meanwhile)} meanwhile ({len(meanwhile):,} answers, {wrong + wrong_meanwhile} wrong); "
        f"memory {start >> 20} MB, at most {most >> 20}, in the end {private(server) >> 20}"
    )
    return bool(wrong + wrong_meanwhile) or any(status >= 500 for status in statuses)


async def attack(name: str, port: int, scale: int) -> Counter[int]:
    """Run one attack to its end."""
    return await ATTACKS[name](Target("127.0.0.1", port, scale, PATIENCE))


class Honest:
    """An honest client in a process of its own."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, __file__, "--honest", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # its first answer

    def end(self) -> tuple[Latencies, int]:
        """Stop it; return the seconds that its answers took, and how many were wrong or missing."""
        output, _ = self._process.communicate(timeout=120)
        latencies, wrong = json.loads(output)
        return latencies, wrong


def ask_honestly(port: int) -> None:
    """Ask, 200 times a second at most and often over a new connection, until standard input ends."""
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    latencies, wrong, expected = [], 0, b""
    while not stopped.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(20):
            begin = time.perf_counter()
            try:
                connection.request("POST", "/lookup", BODY, {"content-type": "application/json"})
                answer = connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                wrong += 1
                break
            latencies.append(time.perf_counter() - begin)
            if not expected:
                expected = answer
                say("ready")
            wrong += answer != expected
            stopped.wait(0.005)
        connection.close()
    say(json.dumps([latencies, wrong]))


class Peak:
    """The most memory that a server holds, looked at ten times a second."""

    def __init__(self, server: Server) -> None:
        self._server, self._most, self._ended = server, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> int:
        """Return the most that was seen, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self._most = max(self._most, private(self._server))


def private(server: Server) -> int:
    """Return the memory that the server shares with no other process, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def ms(latencies: Sequence[float]) -> str:
    """Return median and 99th percentile in milliseconds."""
    return "/".join(f"{1e3 * value:.1f}" for value in np.quantile(latencies, (0.5, 0.99))) + " ms"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
