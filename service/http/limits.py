"""How many requests are answered at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from service.errors import QueueTimeout, TooManyRequests
from service.http.body_timeout import BodyTimeout
from service.observability.metrics import Meter

RETRY = ((b"retry-after", b"1"),)


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for: tokens or ids, bytes of body, and the watch over their arrival."""

    tokens: int
    body: int
    watch: BodyTimeout


class ConcurrencyLimiter:
    """Places for requests, and a bounded queue before them, first come first served.

    Parameters
    ----------
    places : int
        Requests that are answered at once.
    queue : int
        Requests that may wait for a place; more are refused at once.
    timeout : float
        Seconds that a request may wait.
    meter : Meter
        Where the queue's length is noted.
    """

    def __init__(self, places: int, queue: int, timeout: float, meter: Meter) -> None:
        self._free = places
        self._places = places
        self._queue = queue
        self._timeout = timeout
        self._meter = meter
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a place if one is free; if not, `wait` for one."""
        if self._free > 0:
            self._free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Wait for a place.

        Raises
        ------
        TooManyRequests
            The queue is full.
        QueueTimeout
            No place became free in time.
        """
        if len(self._waiting) >= self._queue:
            raise TooManyRequests(
                f"{self._places} requests are being answered and {self._queue} wait, as many as this server "
                "takes (--max-concurrent-requests, --max-queue); try again",
                headers=RETRY,
            )
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._meter.set_queued(len(self._waiting))
        try:
            await asyncio.wait_for(turn, self._timeout)
        except asyncio.TimeoutError:
            if not turn.cancelled():
                return  # its turn came in the same moment
            raise QueueTimeout(
                f"no request of {self._places} ended within {self._timeout:g} s; try again", headers=RETRY
            ) from None
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.done():
                self.leave()
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self._meter.set_queued(len(self._waiting))

    def leave(self) -> None:
        """Give a place back, to the request that has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
