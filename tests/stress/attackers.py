"""Hostile clients in a separate process: each line of input starts one round of all attacks.

    python -m tests.stress.attackers PORT PATIENCE

Writes one JSON object per line: ``{"attack": NAME}`` when an attack begins, and when it has ended
``{"attack": null, "ended": NAME, "statuses": {…}, "seconds": …}``. Exits at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from benchmarks.common.processes import ROOT, module
from tests.attacks.sockets import ATTACKS, Target, is_fault

#: Seconds of pause between two attacks.
_REST = 1.0


async def main(port: int, patience: float) -> None:
    """Run one round of attacks per line of input."""
    # Real attackers are on other machines and do not take processor time of this one.
    os.nice(10)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        for name, attack in ATTACKS.items():
            _report(attack=name)
            begin, statuses = perf_counter(), {}
            try:
                statuses = dict(await attack(Target("127.0.0.1", port, 1, patience)))
            except OSError:
                pass  # its worker was killed
            _report(attack=None, ended=name, statuses=statuses, seconds=perf_counter() - begin)
            await asyncio.sleep(_REST)


class Attackers:
    """The process of hostile clients, and its reports.

    Attributes
    ----------
    attack : str or None
        The one in progress.
    calm_since : float
        When the last one ended.
    statuses : dict
        Count of each status per attack; 0 is a connection closed without a response.
    seconds : dict
        Total time of each attack.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.attack: str | None = None
        self.calm_since = perf_counter()
        self.statuses: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}

    def begin_round(self) -> None:
        """Start one round of all attacks, after those in progress."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    @property
    def running(self) -> bool:
        """Whether the process has not exited."""
        return self._process.returncode is None

    def faults(self) -> int:
        """Return the number of responses with a server error (5xx)."""
        return sum(
            count
            for statuses in self.statuses.values()
            for status, count in statuses.items()
            if is_fault(int(status))
        )

    async def listen(self) -> None:
        """Record its reports until it exits."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report: dict[str, Any] = json.loads(line)
            self.attack = report["attack"]
            if "ended" in report:
                self.calm_since = perf_counter()
                name = report["ended"]
                statuses = self.statuses.setdefault(name, {})
                for status, count in report["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
                self.seconds[name] = self.seconds.get(name, 0.0) + report["seconds"]


@asynccontextmanager
async def running_attackers(port: int, patience: float) -> AsyncIterator[Attackers]:
    """Run hostile clients for the duration of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *module("tests.stress.attackers", str(port), str(patience)), cwd=ROOT, stdin=pipe, stdout=pipe
    )
    attackers = Attackers(process)
    listening = asyncio.ensure_future(attackers.listen())
    try:
        yield attackers
    finally:
        if attackers.running:
            process.terminate()
        await process.wait()
        await listening


def _report(**event: Any) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
