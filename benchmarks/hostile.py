"""Hostile clients in a process of their own: a round of every attack of ``tests/attacks`` for each line read.

    python benchmarks/hostile.py PORT PATIENCE

Writes a JSON object a line: ``{"attack": NAME}`` where an attack begins, and where it has ended
``{"attack": null, "ended": NAME, "statuses": {…}, "seconds": …}``. Ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "attacks"))

#: Seconds between two attacks, in which the server is left alone.
_REST = 1.0


async def main(port: int, patience: float) -> None:
    """Let rounds of attacks loose as they are asked for."""
    from sockets import ATTACKS, Target

    # They would be on other machines, and not take this one's time.
    os.nice(10)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        for name, attack in ATTACKS.items():
            _tell(attack=name)
            begin, statuses = perf_counter(), {}
            try:
                statuses = dict(await attack(Target("127.0.0.1", port, 1, patience)))
            except OSError:
                pass  # the worker that it had connected to was killed
            _tell(attack=None, ended=name, statuses=statuses, seconds=perf_counter() - begin)
            await asyncio.sleep(_REST)


class Hostile:
    """The process, and what it did.

    Attributes
    ----------
    attack : str or None
        The one that goes on.
    calm_since : float
        When the last one ended.
    statuses : dict
        What each attack was answered with, and how often; 0 is a closed connection.
    seconds : dict
        What each took, of all rounds.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.attack: str | None = None
        self.calm_since = perf_counter()
        self.statuses: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}

    def begin_round(self) -> None:
        """Let every attack loose once, after those that go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    @property
    def runs(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.returncode is None

    def faults(self) -> int:
        """Return how often it was answered with a fault of the server's."""
        return sum(
            count
            for statuses in self.statuses.values()
            for status, count in statuses.items()
            if int(status) >= 500
        )

    async def listen(self) -> None:
        """Note what it tells, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            self.attack = told["attack"]
            if "ended" in told:
                self.calm_since = perf_counter()
                name = told["ended"]
                statuses = self.statuses.setdefault(name, {})
                for status, count in told["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
                self.seconds[name] = self.seconds.get(name, 0.0) + told["seconds"]


@asynccontextmanager
async def hostile_clients(port: int, patience: float) -> AsyncIterator[Hostile]:
    """Have them while the block lasts."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(port), str(patience), stdin=pipe, stdout=pipe
    )
    hostile = Hostile(process)
    listening = asyncio.ensure_future(hostile.listen())
    try:
        yield hostile
    finally:
        if hostile.runs:
            process.terminate()
        await process.wait()
        await listening


def _tell(**event: Any) -> None:  # noqa: ANN401 - any JSON values
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
