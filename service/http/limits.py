"""Limits of a request: size, time, and requests in progress."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from service.errors import QueueTimeout, TooManyRequests
from service.http.scheduler import Scheduler

#: Values in a JSON body besides tokens or ids, and lists of them.
_OTHER_VALUES = 1024
RETRY = ((b"retry-after", b"1"),)


class BodyTimeout:
    """Cancels tasks that wait for a request body too long.

    A timer per request costs more than finding its tokens. Here a wait costs one dictionary entry; one timer,
    which runs only while tasks wait, checks all of them ten times per timeout.

    Parameters
    ----------
    timeout : float
        Seconds that a wait may take, accurate to a tenth.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._since: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._armed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> asyncio.Task[Any]:
        """Begin a wait of the current task, and return the task."""
        # With an explicit loop asyncio does not call getpid().
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._since[task] = monotonic()
        if not self._armed:
            self._arm()
        return task

    def leave(self, task: asyncio.Task[Any]) -> bool:
        """End a wait; return whether it timed out."""
        self._since.pop(task, None)
        if task in self._expired:
            self._expired.remove(task)
            return True
        return False

    def _arm(self) -> None:
        self._armed = True
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(self.timeout / 10, self._check)

    def _check(self) -> None:
        self._armed = False
        latest = monotonic() - self.timeout
        for task in [task for task, since in self._since.items() if since <= latest]:
            del self._since[task]
            self._expired.add(task)
            task.cancel()
        if self._since:
            self._arm()


@dataclass(frozen=True)
class Limits:
    """Limits of one request: tokens or ids, bytes of the body, and the time until it has arrived.

    The scheduler shares the event loop among large requests.
    """

    tokens: int
    body: int
    timeout: BodyTimeout
    scheduler: Scheduler

    @property
    def values(self) -> int:
        """Values and lists in a JSON body: tokens or ids, each in a list of its own, and other fields."""
        return 3 * self.tokens + _OTHER_VALUES


class ConcurrencyLimiter:
    """Slots for requests in progress, and a bounded first-in, first-out queue for them.

    Parameters
    ----------
    slots : int
        Requests in progress at once.
    queue : int
        Requests that may wait for a slot; further ones are rejected.
    timeout : float
        Seconds that a request may wait.
    count_queued : callable
        Called with 1 when a request enters the queue, and with -1 when it leaves.
    noun, options : str
        What error messages call the requests, and the options that they name.
    """

    def __init__(
        self,
        slots: int,
        queue: int,
        timeout: float,
        count_queued: Callable[[int], None],
        noun: str = "requests",
        options: str = " (--max-concurrent-requests, --max-queue)",
    ) -> None:
        self._free = slots
        self._slots = slots
        self._queue = queue
        self._timeout = timeout
        self._count_queued = count_queued
        self._noun = noun
        self._options = options
        self._waiting: deque[asyncio.Future[None]] = deque()

    def acquire(self) -> bool:
        """Take a free slot; return False if there is none, then `wait`."""
        if self._free > 0:
            self._free -= 1
            return True
        return False

    def check(self) -> None:
        """Raise `TooManyRequests` if there is neither a free slot nor room in the queue."""
        if self._free <= 0 and len(self._waiting) >= self._queue:
            raise TooManyRequests(
                f"{self._noun} in progress: {self._slots}, waiting: {self._queue}, the most that this worker "
                f"takes{self._options}; try again",
                headers=RETRY,
            )

    async def wait(self) -> None:
        """Wait for a slot.

        Raises
        ------
        TooManyRequests
            The queue is full.
        QueueTimeout
            No slot became free in time.
        """
        self.check()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._count_queued(1)
        try:
            await asyncio.wait_for(turn, self._timeout)
        except asyncio.TimeoutError:
            if not turn.cancelled():
                return  # the slot was handed over at the same moment
            raise QueueTimeout(
                f"none of {self._slots} {self._noun} ended within {self._timeout:g} s; try again",
                headers=RETRY,
            ) from None
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.done():
                self.release()
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self._count_queued(-1)

    def release(self) -> None:
        """Return a slot, to the request that has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
