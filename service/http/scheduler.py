"""Fair scheduling of large requests on the event loop."""

from __future__ import annotations

import asyncio


class Scheduler:
    """Runs at most one slice of the work of large requests in each iteration of an event loop.

    I/O and small requests run between two slices. Every other slice goes to the request that has had the
    fewest, so that shorter ones end soon; the others go to the one that has waited longest, so that none
    starves.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._running = False
        self._in_order = False

    async def turn(self, taken: int) -> None:
        """Wait for a slice; `taken` is the number of slices that the request has had."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting[turn] = taken
        if not self._running:
            self._running = True
            loop.call_soon(self._grant)
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)

    def _grant(self) -> None:
        """Wake one request, and call this again in the next iteration, while requests wait."""
        if not self._waiting:
            self._running = False
            return
        self._in_order = not self._in_order
        waiting = self._waiting  # in order of arrival, which also decides ties
        turn = next(iter(waiting)) if self._in_order else min(waiting, key=waiting.__getitem__)
        del waiting[turn]
        if not turn.done():
            turn.set_result(None)
        asyncio.get_running_loop().call_soon(self._grant)
