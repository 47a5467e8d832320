"""Load a server at 70 % of what it can take for many minutes, while everything around it goes wrong.

Files are swapped, workers killed, and hostile clients (``tests/attacks/sockets.py``) let loose, in turns;
every answer is compared with the bytes that the vocabulary it names has to give. Prints a line a minute, and
in the end how fast memory grew: of the whole server, and of the worker that is never killed. Exits with 1 if
any answer was wrong, or more were lost than killed workers had begun.

    python benchmarks/endurance.py --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
from processes import free_port, listening, pss, python, running
from serving import children
from soak import QUERIES, Soak

CONNECTIONS = 16
WORKERS = 2
#: Answers over one connection.
ANSWERS = 500
LOAD = 0.7
#: Seconds between two swaps, two kills, and two readings of memory.
SWAP, KILL, SAMPLE = 5.0, 20.0, 2.0
#: The first part of the run, in which caches fill, is left out of the slopes.
WARM = 0.25
BAD = "--hostile"


def main() -> None:
    """Run it, or be its hostile clients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(BAD, type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hostile:
        asyncio.run(harass(options.hostile))
        return
    with tempfile.TemporaryDirectory() as folder:
        endurance = Endurance(Path(folder), CONNECTIONS)
        asyncio.run(endurance.endure(60 * options.minutes))
        sys.exit(int(endurance.report()))


class Endurance(Soak):
    """The soak's vocabularies and queries, asked at a steady rate."""

    def __init__(self, folder: Path, connections: int) -> None:
        super().__init__(folder, connections)
        self._latencies: list[float] = []
        self._checked = self._kills = self._swaps = 0
        self._problems: Counter[str] = Counter()
        self._lost = 0
        self._samples: list[tuple[float, int, int]] = []
        self._begin = 0.0

    async def endure(self, seconds: float) -> None:
        """Measure what the server can take, then load it for so long."""
        served = self._folder / "served.sfq"
        self._swap(served, 0)
        port = free_port()
        options = ("--embeddings", str(served), "--port", str(port), "--workers", str(WORKERS))
        quiet = ("--log-level", "critical", "--request-timeout", "3")
        with running(
            python("-m", "service.cli", *options, *quiet), listening(("127.0.0.1", port))
        ) as process:
            hostile = subprocess.Popen([sys.executable, __file__, BAD, str(port)])
            try:
                # The hostile clients take their part of the machine, and the server, all along.
                most = await self._rate(port, min(60.0, seconds / 4))
                rate = LOAD * most
                print(f"{most:,.0f} answers/s at most; loading with {rate:,.0f}/s", flush=True)
                self._latencies.clear()
                self._begin = perf_counter()
                end = self._begin + seconds
                await asyncio.gather(
                    *(self._ask_steadily(port, rate, number, end) for number in range(self._connections)),
                    self._disturb(process, served, end),
                    self._watch(process, end),
                )
            finally:
                hostile.terminate()
                hostile.wait()

    async def _rate(self, port: int, seconds: float) -> float:
        begin, checked = perf_counter(), self._checked
        asking = (
            self._ask_steadily(port, np.inf, number, begin + seconds) for number in range(self._connections)
        )
        await asyncio.gather(*asking)
        return (self._checked - checked) / (perf_counter() - begin)

    async def _ask_steadily(self, port: int, rate: float, number: int, end: float) -> None:
        """Ask at a share of the rate; time answers from when they were due, as their askers would."""
        step = self._connections / rate
        due = perf_counter() + step * number / self._connections
        while due < end:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    # New connections are shared out anew: those of a killed worker would stay with the other.
                    for _ in range(ANSWERS):
                        if due >= end:
                            break
                        await asyncio.sleep(max(0.0, due - perf_counter()))
                        asked = min(due, perf_counter())
                        closes = await self._check_answer(reader, writer)
                        self._latencies.append(perf_counter() - asked)
                        due = max(due + step, perf_counter()) if rate == np.inf else due + step
                        if closes:
                            break
                finally:
                    writer.close()
                continue
            self._lost += 1
            due = max(due, perf_counter())

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
                self._kills += 1
                os.kill(children(process.pid)[-1], signal.SIGKILL)

    async def _watch(self, process: subprocess.Popen[bytes], end: float) -> None:
        """Read the memory, and print a line a minute."""
        minute = 1
        while perf_counter() < end:
            await asyncio.sleep(SAMPLE)
            now = perf_counter() - self._begin
            with suppress(OSError):
                pids = [process.pid, *children(process.pid)]
                held = [pss(pid) for pid in pids]
                self._samples.append((now, sum(held), held[1]))
            if now >= 60 * minute:
                latencies, self._latencies = self._latencies, []
                p50, p99 = 1e3 * np.quantile(latencies, (0.5, 0.99))
                print(
                    f"minute {minute}: {len(latencies):,} answers, p50 {p50:.2f} ms, p99 {p99:.1f} ms, "
                    f"PSS {self._samples[-1][1] / 1e6:.0f} MB",
                    flush=True,
                )
                minute += 1

    def report(self) -> bool:
        """Print what came of it; say whether it failed."""
        wrong = sum(self._problems.values())
        print(
            f"{self._checked:,} answers checked, {wrong} wrong; {self._lost} lost with {self._kills} killed "
            f"workers; {self._swaps} swaps"
        )
        for problem, count in self._problems.most_common(5):
            print(f"  {count} x {problem}")
        samples = np.array(self._samples)
        samples = samples[samples[:, 0] > WARM * samples[-1, 0]]
        for name, column in (("the server", 1), ("the worker that was never killed", 2)):
            slope = np.polyfit(samples[:, 0] / 60, samples[:, column] / 1e6, 1)[0]
            print(f"PSS of {name}: {slope:+.3f} MB/min, {samples[-1, column] / 1e6:.0f} MB in the end")
        return bool(self._problems) or self._lost > self._kills * self._connections


async def harass(port: int) -> None:
    """Let the hostile clients loose one after the other, until told to stop."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "attacks"))
    from sockets import ATTACKS, Target

    while True:
        for attack in ATTACKS.values():
            await attack(Target("127.0.0.1", port, 1, 3.0))
            await asyncio.sleep(1)


if __name__ == "__main__":
    main()
