"""Load a server at 70 % of what it can take for many minutes, while everything around it goes wrong.

Files are swapped, workers killed, and hostile clients (``tests/attacks/sockets.py``) let loose, each of them
once a minute; every answer is compared with the bytes that the vocabulary it names has to give. Prints a line
a minute, and keeps all figures so far in a JSON file: a run that is ended early has told what it saw.

Exits with 1 if any answer was wrong, missing for another reason than a killed worker, or an attacker got a
fault of the server's (5xx); if a process ended that was not killed, or the server did not end when told to.

    python benchmarks/endurance.py --minutes 30
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
from hostile import Hostile, hostile_clients
from latencies import Latencies, milliseconds
from processes import free_port, listening, pss, python, running
from serving import children, write_random
from soak import QUERIES, Soak

CONNECTIONS = 16
WORKERS = 2
#: Answers over one connection.
ANSWERS = 500
LOAD = 0.7
#: Seconds between two swaps, two kills, and two readings of memory.
SWAP, KILL, SAMPLE = 5.0, 20.0, 2.0
#: Seconds after a kill, and after an attack, in which what happens is put down to it.
AFTER_KILL, AFTER_ATTACK = 3.0, 0.5
#: Seconds that the server waits for a client: some attacks take twice as long.
TIMEOUT = 2.0
#: Seconds by which requests may be late; those that are later are not asked, so that a stall ends.
LATEST = 5.0
#: Seconds after which an answer counts as lost.
PATIENCE = 30.0
#: The first part of the run, in which caches fill, is left out of the slopes, which take minutes.
WARM, FEWEST = 0.25, 4
MINUTE = 60.0
#: When nothing of what is done to the server goes on.
QUIET = "quiet"
#: Whose memory is told.
PROCESSES = ("server", "parent", "oldest worker")
OUT = Path(__file__).resolve().parent / "results" / "endurance.json"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Ended in this way too, it ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        endurance = Endurance(Path(folder), options.out)
        uvloop.run(endurance.endure(MINUTE * options.minutes))
        sys.exit(int(endurance.report()))


class Endurance(Soak):
    """The soak's vocabularies and queries, asked at a steady rate."""

    def __init__(self, folder: Path, out: Path) -> None:
        super().__init__(folder, CONNECTIONS, "served")
        # What the attacks ask for.
        write_random(folder / "large.sfq", 5000)
        write_random(folder / "small.sfq", 12)
        self._out = out
        self._begin = 0.0
        self._most = self._rate = 0.0
        self._checked = self._swaps = 0
        self._problems: Counter[str] = Counter()
        self._kills: list[float] = []
        self._lost = self._unasked = 0
        self._hostile: Hostile | None = None
        self._asked: list[tuple[float, asyncio.StreamWriter | None]] = [(np.inf, None)] * CONNECTIONS
        self._label = QUIET
        self._latencies: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._all = Latencies()
        self._by_label: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._samples: list[tuple[int, int, int]] = []
        self._minutes: list[dict[str, Any]] = []

    async def endure(self, seconds: float) -> None:
        """Measure what the server can take, then load it for so long."""
        served = self._folder / "served.sfq"
        self._swap(served, 0)
        port = free_port()
        options = ("--embeddings", str(self._folder), "--port", str(port), "--workers", str(WORKERS))
        quiet = ("--log-level", "critical", "--request-timeout", f"{TIMEOUT:g}")
        with running(
            python("-m", "service.cli", *options, *quiet), listening(("127.0.0.1", port))
        ) as process:
            async with hostile_clients(port, TIMEOUT) as self._hostile:
                # The hostile clients take their part of the machine, and the server, all along.
                self._hostile.begin_round()
                self._most = await self._greatest_rate(port, min(MINUTE, seconds / 4))
                self._rate = LOAD * self._most
                print(f"{self._most:,.0f} answers/s at most; loading with {self._rate:,.0f}/s", flush=True)
                self._latencies.clear()
                self._begin = perf_counter()
                end = self._begin + seconds
                await asyncio.gather(
                    *(self._ask_steadily(port, self._rate, number, end) for number in range(CONNECTIONS)),
                    self._disturb(process, served, end),
                    self._watch(process, end),
                )
                if not self._hostile.runs:
                    self._problems["the hostile clients ended by themselves"] += 1
            pids = {process.pid, *children(process.pid)}
            restarts = worker_restarts(port)
            if restarts != len(self._kills):
                self._problems[f"{restarts} workers started again, {len(self._kills)} killed"] += 1
        if process.returncode:
            self._problems[f"the server ended with {process.returncode}"] += 1
        if any(Path("/proc", str(pid)).exists() for pid in pids):
            self._problems["a process of the server was left"] += 1

    async def _greatest_rate(self, port: int, seconds: float) -> float:
        begin, checked = perf_counter(), self._checked
        asking = (self._ask_steadily(port, np.inf, number, begin + seconds) for number in range(CONNECTIONS))
        await asyncio.gather(*asking)
        return (self._checked - checked) / (perf_counter() - begin)

    async def _ask_steadily(self, port: int, rate: float, number: int, end: float) -> None:
        """Ask at a share of the rate; time answers from when they were due, as their askers would."""
        step = CONNECTIONS / rate
        due = perf_counter() + step * number / CONNECTIONS
        while due < end:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    # New connections are shared out anew: those of a killed worker would stay with the other.
                    for _ in range(ANSWERS):
                        if due >= end:
                            break
                        await asyncio.sleep(max(0.0, due - perf_counter()))
                        now = perf_counter()
                        if now > due + LATEST:
                            self._unasked += int((now - due) / step)
                            due = now
                        asked, label = min(due, now), self._label
                        self._asked[number] = now, writer
                        closes = await self._check_answer(reader, writer)
                        self._latencies[label].append(perf_counter() - asked)
                        due = max(due + step, perf_counter()) if rate == np.inf else due + step
                        if closes:
                            break
                finally:
                    self._asked[number] = np.inf, None
                    writer.close()
                continue
            self._lose()
            due = max(due, perf_counter())

    def _lose(self) -> None:
        """Count an answer that did not come; without a kill that explains it, it is a problem."""
        self._lost += 1
        if not self._kills or perf_counter() > self._kills[-1] + AFTER_KILL:
            self._problems["an answer lost while no worker was killed"] += 1

    async def _check_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask, compare, and say whether the server closes the connection."""
        number = self._checked % QUERIES
        writer.write(self._requests[number])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(headers["content-length"]))
        self._checked += 1
        if not head.startswith("HTTP/1.1 200"):
            self._problems[head.partition("\r\n")[0]] += 1
        elif body != self._expected[headers["x-smallfry-digest"]][number]:
            self._problems["a wrong answer"] += 1
        return headers.get("connection") == "close"

    async def _disturb(self, process: subprocess.Popen[bytes], served: Path, end: float) -> None:
        """Swap the file and kill the youngest worker, now and then."""
        next_kill = perf_counter() + KILL
        while perf_counter() + SWAP < end:
            await asyncio.sleep(SWAP)
            self._swaps += 1
            self._swap(served, self._swaps % 2)
            process.send_signal(signal.SIGHUP)
            if perf_counter() > next_kill and len(children(process.pid)) == WORKERS:
                next_kill += KILL
                self._kills.append(perf_counter())
                os.kill(children(process.pid)[-1], signal.SIGKILL)

    async def _watch(self, process: subprocess.Popen[bytes], end: float) -> None:
        """Say what is done to the server, read its memory, and close each minute."""
        assert self._hostile is not None
        self._hostile.begin_round()
        next_sample, begun, cpu = self._begin, self._begin, process_time()
        while perf_counter() < end:
            self._label = self._cause()
            await asyncio.sleep(0.02)
            now = perf_counter()
            if now >= next_sample:
                next_sample += SAMPLE
                self._sample(process.pid)
                self._end_stalled(now)
            if now >= begun + MINUTE or now >= end:
                self._close_minute(now - begun, process_time() - cpu)
                begun, cpu = now, process_time()
                if now + MINUTE / 2 < end:
                    self._hostile.begin_round()

    def _cause(self) -> str:
        """Name what answers may have to wait for now."""
        now = perf_counter()
        if self._kills and now < self._kills[-1] + AFTER_KILL:
            return "a killed worker"
        assert self._hostile is not None
        if self._hostile.attack is not None:
            return self._hostile.attack
        return QUIET if now > self._hostile.calm_since + AFTER_ATTACK else "the end of an attack"

    def _sample(self, server: int) -> None:
        """Read the memory of the whole server, its parent, and the worker that is never killed."""
        with suppress(OSError):
            pids = [server, *children(server)]
            held = [pss(pid) for pid in pids]
            self._samples.append((sum(held), held[0], held[1]))

    def _end_stalled(self, now: float) -> None:
        """Give up answers that do not come, so that the run ends."""
        for asked, writer in self._asked:
            if writer is not None and now > asked + PATIENCE:
                self._problems[f"no answer within {PATIENCE:g} s"] += 1
                writer.transport.abort()

    def _close_minute(self, seconds: float, cpu: float) -> None:
        """Print what a minute gave, and write down all that is known so far."""
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
            "answers": len(every),
            "milliseconds": milliseconds(every),
            "quiet_milliseconds": milliseconds(latencies.get(QUIET, array("d"))),
            "pss_mb": dict(zip(PROCESSES, memory.round(2).tolist(), strict=True)),
            "client_cpu": round(cpu / seconds, 2),
        }
        self._minutes.append(minute)
        self._write(complete=False)
        print(
            f"minute {len(self._minutes)}: {len(every):,} answers, p50/p99/max in ms "
            f"{slashed(minute['milliseconds'])}, undisturbed {slashed(minute['quiet_milliseconds'])}; "
            f"PSS {slashed(minute['pss_mb'])} MB ({', '.join(PROCESSES)})",
            flush=True,
        )

    def _facts(self, *, complete: bool) -> dict[str, Any]:
        assert self._hostile is not None
        return {
            "complete": complete,
            "answers_per_second": {"most": round(self._most), "asked": round(self._rate)},
            "checked": self._checked,
            "problems": dict(self._problems),
            "lost": self._lost,
            "unasked": self._unasked,
            "kills": len(self._kills),
            "swaps": self._swaps,
            "milliseconds": self._all.milliseconds(),
            "milliseconds_by_cause": {
                label: {"answers": times.count} | times.milliseconds()
                for label, times in sorted(self._by_label.items())
            },
            "hostile_statuses": self._hostile.statuses,
            "hostile_seconds": {name: round(took, 1) for name, took in self._hostile.seconds.items()},
            "pss_mb_per_minute": self._slopes(),
            "minutes": self._minutes,
        }

    def _slopes(self) -> dict[str, float]:
        """Fit lines through the medians of minutes; nothing where they are too few."""
        minutes = self._minutes[round(WARM * len(self._minutes)) :]
        held = [list(minute["pss_mb"].values()) for minute in minutes if minute["seconds"] > MINUTE / 2]
        if len(held) < FEWEST:
            return {}
        slopes = np.polyfit(np.arange(len(held)), np.array(held), 1)[0]
        return dict(zip(PROCESSES, slopes.round(4).tolist(), strict=True))

    def _write(self, *, complete: bool) -> None:
        beside = self._out.with_suffix(".new")
        beside.write_text(json.dumps(self._facts(complete=complete), indent=1) + "\n")
        os.replace(beside, self._out)

    def report(self) -> bool:
        """Print what came of it; say whether it failed."""
        if self._hostile is not None and (faults := self._hostile.faults()):
            self._problems["a fault that an attacker was answered with"] += faults
        self._write(complete=True)
        print(
            f"{self._checked:,} answers checked; {self._lost} lost with {len(self._kills)} killed workers; "
            f"{self._swaps} swaps; p50/p99/max {slashed(self._all.milliseconds())}"
        )
        for label, times in sorted(self._by_label.items(), key=lambda item: item[1].count):
            print(f"  {label}: {times.count:,} answers, p50/p99/max {slashed(times.milliseconds())}")
        slopes = self._slopes()
        print(f"not asked, being more than {LATEST:g} s late: {self._unasked:,}")
        told = ", ".join(f"{name} {slope:+.3f}" for name, slope in slopes.items())
        print(f"PSS, MB a minute: {told or f'{FEWEST} minutes are needed for a slope'}")
        p99 = [minute["milliseconds"].get("p99", np.nan) for minute in self._minutes]
        print(f"p99 of the minutes: {min(p99)} to {max(p99)} ms, median {np.median(p99):.2f}")
        for problem, count in self._problems.most_common():
            print(f"  WRONG: {count} x {problem}")
        print(f"written to {self._out}")
        return bool(self._problems)


def slashed(values: dict[str, float]) -> str:
    """Return numbers in a row."""
    return "/".join(f"{value:g}" for value in values.values()) or "none"


def worker_restarts(port: int) -> int:
    """Return how many workers the server says that it has started again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/stats")
        return int(json.loads(connection.getresponse().read())["worker_restarts"])
    finally:
        connection.close()


if __name__ == "__main__":
    main()
