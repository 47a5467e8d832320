"""Load a server at 70 % of its capacity for many minutes, under faults and attacks.

Files are replaced, workers killed, and every attack of ``tests/attacks/sockets.py`` runs once per minute.
Each response is compared with the expected bytes of the file whose digest it names. Prints one line per
minute, and writes all results so far to a JSON file, so that a run that is stopped early keeps them.

Exits with 1 if a response was wrong, or lost without a killed worker; if an attacker got a server error
(5xx); if a process ended that was not killed, or the server did not stop on SIGTERM.

    python -m tests.stress.endurance --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from array import array
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import uvloop

from benchmarks.common.processes import ROOT, children, free_port, listening, pss, running, server
from tests.attacks.sockets import write_models
from tests.stress.attackers import Attackers, running_attackers
from tests.stress.latencies import Latencies, milliseconds
from tests.stress.soak import QUERIES, Soak

CONNECTIONS = 16
WORKERS = 2
#: Responses over one connection.
RESPONSES = 500
LOAD = 0.7
#: Seconds between two replacements of the file, two kills, and two samples of memory.
REPLACE, KILL, SAMPLE = 5.0, 20.0, 2.0
#: Seconds after a kill, and after an attack, in which effects are attributed to it.
AFTER_KILL, AFTER_ATTACK = 3.0, 0.5
#: Request timeout of the server in seconds; some attacks take twice as long.
TIMEOUT = 2.0
#: Seconds by which requests may be late; later ones are skipped, so that a stall ends.
LATEST = 5.0
#: Seconds after which a response counts as lost.
PATIENCE = 30.0
#: Part of the run that is left out of the slopes, because caches fill, and the fewest minutes for a slope.
WARM, FEWEST = 0.25, 4
MINUTE = 60.0
#: Label of responses without a fault or an attack.
QUIET = "quiet"
#: Processes whose memory is reported.
PROCESSES = ("server", "parent", "oldest worker")
OUT = ROOT / "build" / "stress" / "endurance.json"


def main() -> None:
    """Run the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="duration of the load (30)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file of the results")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # SIGTERM also stops the processes that were started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        endurance = Endurance(Path(folder), options.out)
        uvloop.run(endurance.endure(MINUTE * options.minutes))
        sys.exit(int(endurance.report()))


class Endurance(Soak):
    """The files and queries of the soak test, at a steady rate."""

    def __init__(self, folder: Path, out: Path) -> None:
        super().__init__(folder, CONNECTIONS, "served")
        # Models that the attacks use.
        write_models(folder)
        self._out = out
        self._begin = 0.0
        self._capacity = self._rate = 0.0
        self._checked = self._replacements = 0
        self._problems: Counter[str] = Counter()
        self._kills: list[float] = []
        self._lost = self._skipped = 0
        self._attackers: Attackers | None = None
        self._pending: list[tuple[float, asyncio.StreamWriter | None]] = [(np.inf, None)] * CONNECTIONS
        self._label = QUIET
        self._latencies: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._all = Latencies()
        self._by_label: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._samples: list[tuple[int, int, int]] = []
        self._minutes: list[dict[str, Any]] = []

    async def endure(self, seconds: float) -> None:
        """Measure the server's capacity, then load it."""
        served = self._folder / "served.sfq"
        self._replace(served, 0)
        port = free_port()
        options = ("--port", str(port), "--workers", str(WORKERS), "--log-level", "critical")
        command = server(self._folder, *options, "--request-timeout", f"{TIMEOUT:g}")
        with running(command, listening(port)) as process:
            async with running_attackers(port, TIMEOUT) as self._attackers:
                # The attackers take their part of the machine during the whole run.
                self._attackers.begin_round()
                self._capacity = await self._measure_capacity(port, min(MINUTE, seconds / 4))
                self._rate = LOAD * self._capacity
                print(
                    f"capacity {self._capacity:,.0f} responses/s; loading with {self._rate:,.0f}/s",
                    flush=True,
                )
                self._latencies.clear()
                self._begin = perf_counter()
                end = self._begin + seconds
                await asyncio.gather(
                    *(self._send_steadily(port, self._rate, number, end) for number in range(CONNECTIONS)),
                    self._disturb(process, served, end),
                    self._watch(process, end),
                )
                if not self._attackers.running:
                    self._problems["the attackers exited"] += 1
            pids = {process.pid, *children(process.pid)}
            restarts = worker_restarts(port)
            if restarts != len(self._kills):
                self._problems[f"{restarts} workers restarted, {len(self._kills)} killed"] += 1
        if process.returncode:
            self._problems[f"the server exited with {process.returncode}"] += 1
        if any(Path("/proc", str(pid)).exists() for pid in pids):
            self._problems["a process of the server is still running"] += 1

    async def _measure_capacity(self, port: int, seconds: float) -> float:
        begin, checked = perf_counter(), self._checked
        clients = (
            self._send_steadily(port, np.inf, number, begin + seconds) for number in range(CONNECTIONS)
        )
        await asyncio.gather(*clients)
        return (self._checked - checked) / (perf_counter() - begin)

    async def _send_steadily(self, port: int, rate: float, number: int, end: float) -> None:
        """Send a part of the load; latencies count from when a request was due, not from when it was sent."""
        step = CONNECTIONS / rate
        due = perf_counter() + step * number / CONNECTIONS
        while due < end:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    # New connections are balanced again: those of a killed worker would stay with the other.
                    for _ in range(RESPONSES):
                        if due >= end:
                            break
                        await asyncio.sleep(max(0.0, due - perf_counter()))
                        now = perf_counter()
                        if now > due + LATEST:
                            self._skipped += int((now - due) / step)
                            due = now
                        sent, label = min(due, now), self._label
                        self._pending[number] = now, writer
                        closes = await self._check_response(reader, writer)
                        self._latencies[label].append(perf_counter() - sent)
                        due = max(due + step, perf_counter()) if rate == np.inf else due + step
                        if closes:
                            break
                finally:
                    self._pending[number] = np.inf, None
                    writer.close()
                continue
            self._lose()
            due = max(due, perf_counter())

    def _lose(self) -> None:
        """Count a lost response; it is a problem unless a worker was just killed."""
        self._lost += 1
        if not self._kills or perf_counter() > self._kills[-1] + AFTER_KILL:
            self._problems["a response lost while no worker was killed"] += 1

    async def _check_response(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send a query and compare the response; return whether the server closes the connection."""
        number = self._checked % QUERIES
        writer.write(self._queries[number])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(headers["content-length"]))
        self._checked += 1
        if not head.startswith("HTTP/1.1 200"):
            self._problems[head.partition("\r\n")[0]] += 1
        elif body != self._expected[headers["x-smallfry-digest"]][number]:
            self._problems["wrong response"] += 1
        return headers.get("connection") == "close"

    async def _disturb(self, process: subprocess.Popen[bytes], served: Path, end: float) -> None:
        """Replace the file and kill the youngest worker from time to time."""
        next_kill = perf_counter() + KILL
        while perf_counter() + REPLACE < end:
            await asyncio.sleep(REPLACE)
            self._replacements += 1
            self._replace(served, self._replacements % 2)
            process.send_signal(signal.SIGHUP)
            if perf_counter() > next_kill and len(children(process.pid)) == WORKERS:
                next_kill += KILL
                self._kills.append(perf_counter())
                os.kill(children(process.pid)[-1], signal.SIGKILL)

    async def _watch(self, process: subprocess.Popen[bytes], end: float) -> None:
        """Label the current disturbance, sample memory, and close each minute."""
        assert self._attackers is not None
        self._attackers.begin_round()
        next_sample, begun, cpu = self._begin, self._begin, process_time()
        while perf_counter() < end:
            self._label = self._cause()
            await asyncio.sleep(0.02)
            now = perf_counter()
            if now >= next_sample:
                next_sample += SAMPLE
                self._sample(process.pid)
                self._abort_stalled(now)
            if now >= begun + MINUTE or now >= end:
                self._close_minute(now - begun, process_time() - cpu)
                begun, cpu = now, process_time()
                if now + MINUTE / 2 < end:
                    self._attackers.begin_round()

    def _cause(self) -> str:
        """Return the disturbance that responses may wait for now."""
        now = perf_counter()
        if self._kills and now < self._kills[-1] + AFTER_KILL:
            return "killed worker"
        assert self._attackers is not None
        if self._attackers.attack is not None:
            return self._attackers.attack
        return QUIET if now > self._attackers.calm_since + AFTER_ATTACK else "end of an attack"

    def _sample(self, server: int) -> None:
        """Sample the memory of the whole server, its parent, and the worker that is never killed."""
        with suppress(OSError):
            pids = [server, *children(server)]
            held = [pss(pid) for pid in pids]
            self._samples.append((sum(held), held[0], held[1]))

    def _abort_stalled(self, now: float) -> None:
        """Abort connections without a response, so that the run ends."""
        for sent, writer in self._pending:
            if writer is not None and now > sent + PATIENCE:
                self._problems[f"no response within {PATIENCE:g} s"] += 1
                writer.transport.abort()

    def _close_minute(self, seconds: float, cpu: float) -> None:
        """Print the results of a minute, and write all results so far."""
        latencies, self._latencies = dict(self._latencies), defaultdict(lambda: array("d"))
        samples, self._samples = self._samples, []
        every = array("d")
        for label, times in latencies.items():
            every.extend(times)
            self._by_label[label].add(times)
        self._all.add(every)
        memory = np.median(np.array(samples).reshape(-1, 3), axis=0) / 1e6 if samples else np.full(3, np.nan)
        minute = {
            "seconds": round(seconds, 1),
            "responses": len(every),
            "milliseconds": milliseconds(every),
            "quiet_milliseconds": milliseconds(latencies.get(QUIET, array("d"))),
            "pss_mb": dict(zip(PROCESSES, memory.round(2).tolist(), strict=True)),
            "client_cpu": round(cpu / seconds, 2),
        }
        self._minutes.append(minute)
        self._write(complete=False)
        print(
            f"minute {len(self._minutes)}: {len(every):,} responses, p50/p99/max in ms "
            f"{slashed(minute['milliseconds'])}, undisturbed {slashed(minute['quiet_milliseconds'])}; "
            f"PSS {slashed(minute['pss_mb'])} MB ({', '.join(PROCESSES)})",
            flush=True,
        )

    def _results(self, *, complete: bool) -> dict[str, Any]:
        assert self._attackers is not None
        return {
            "complete": complete,
            "responses_per_second": {"capacity": round(self._capacity), "load": round(self._rate)},
            "checked": self._checked,
            "problems": dict(self._problems),
            "lost": self._lost,
            "skipped": self._skipped,
            "kills": len(self._kills),
            "replacements": self._replacements,
            "milliseconds": self._all.milliseconds(),
            "milliseconds_by_cause": {
                label: {"responses": times.count} | times.milliseconds()
                for label, times in sorted(self._by_label.items())
            },
            "attack_statuses": self._attackers.statuses,
            "attack_seconds": {name: round(took, 1) for name, took in self._attackers.seconds.items()},
            "pss_mb_per_minute": self._slopes(),
            "minutes": self._minutes,
        }

    def _slopes(self) -> dict[str, float]:
        """Fit lines through the medians of minutes; return an empty dict if there are too few."""
        minutes = self._minutes[round(WARM * len(self._minutes)) :]
        held = [list(minute["pss_mb"].values()) for minute in minutes if minute["seconds"] > MINUTE / 2]
        if len(held) < FEWEST:
            return {}
        slopes = np.polyfit(np.arange(len(held)), np.array(held), 1)[0]
        return dict(zip(PROCESSES, slopes.round(4).tolist(), strict=True))

    def _write(self, *, complete: bool) -> None:
        new = self._out.with_suffix(".new")
        new.write_text(json.dumps(self._results(complete=complete), indent=1) + "\n")
        os.replace(new, self._out)

    def report(self) -> bool:
        """Print the results; return whether the test failed."""
        if self._attackers is not None and (faults := self._attackers.faults()):
            self._problems["server error sent to an attacker"] += faults
        self._write(complete=True)
        print(
            f"{self._checked:,} responses checked; {self._lost} lost with {len(self._kills)} killed workers; "
            f"{self._replacements} replacements; p50/p99/max {slashed(self._all.milliseconds())}"
        )
        for label, times in sorted(self._by_label.items(), key=lambda item: item[1].count):
            print(f"  {label}: {times.count:,} responses, p50/p99/max {slashed(times.milliseconds())}")
        slopes = self._slopes()
        print(f"skipped, more than {LATEST:g} s late: {self._skipped:,}")
        shown = ", ".join(f"{name} {slope:+.3f}" for name, slope in slopes.items())
        print(f"PSS, MB per minute: {shown or f'{FEWEST} minutes are needed for a slope'}")
        p99 = [minute["milliseconds"].get("p99", np.nan) for minute in self._minutes]
        print(f"p99 of the minutes: {min(p99)} to {max(p99)} ms, median {np.median(p99):.2f}")
        for problem, count in self._problems.most_common():
            print(f"  WRONG: {count} x {problem}")
        print(f"written to {self._out}")
        return bool(self._problems)


def slashed(values: dict[str, float]) -> str:
    """Return numbers separated by slashes."""
    return "/".join(f"{value:g}" for value in values.values()) or "none"


def worker_restarts(port: int) -> int:
    """Return the number of worker restarts that the server reports."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/stats")
        return int(json.loads(connection.getresponse().read())["worker_restarts"])
    finally:
        connection.close()


if __name__ == "__main__":
    main()
