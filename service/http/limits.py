"""Limits of a request: size, time, and requests in progress."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from service.config import Config
from service.errors import QueueTimeout, TooManyRequests
from service.http.scheduler import Scheduler

#: Values in a JSON body besides tokens or ids, and lists of them.
_OTHER_VALUES = 1024
#: Requests with a large body or response in progress at once: they hold no slot of the others.
LARGE = 64
#: Bytes of large bodies that a worker holds at once, unless one body may be larger.
LARGE_BODIES = 24 << 20
#: Seconds after which a large body is rejected if others wait for its bytes.
CONTENDED_TIMEOUT = 1.0
#: Bodies in progress above which all have to arrive within `SHORT_TIMEOUT` seconds.
MANY_BODIES, SHORT_TIMEOUT = 1000, 1.5
RETRY = ((b"retry-after", b"1"),)


class BodyTimeout:
    """Cancels tasks that wait for a request body too long.

    A timer per request costs more than finding its tokens. Here a wait costs one dictionary entry; one timer,
    which runs only while tasks wait, checks all of them.

    Parameters
    ----------
    timeout : float
        Seconds that a wait may take, accurate to a tenth.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._since: dict[asyncio.Task[Any], float] = {}
        self._held: dict[asyncio.Task[Any], tuple[ConcurrencyLimiter, int]] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._armed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, held: tuple[ConcurrencyLimiter, int] | None = None) -> asyncio.Task[Any]:
        """Begin a wait of the current task, and return the task.

        The wait has to be short if other tasks wait for what the task has taken, the slots of a limiter.
        """
        # With an explicit loop asyncio does not call getpid().
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._since[task] = monotonic()
        if held is not None:
            self._held[task] = held
        if not self._armed:
            self._arm()
        return task

    def leave(self, task: asyncio.Task[Any]) -> bool:
        """End a wait; return whether it timed out."""
        self._since.pop(task, None)
        if self._held:
            self._held.pop(task, None)
        if task in self._expired:
            self._expired.remove(task)
            return True
        return False

    def _arm(self) -> None:
        self._armed = True
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(min(self.timeout, 1) / 10, self._check)

    def _check(self) -> None:
        self._armed = False
        now, timeout = monotonic(), self.timeout
        if len(self._since) > MANY_BODIES:
            timeout = min(timeout, SHORT_TIMEOUT)
        late = [task for task, since in self._since.items() if now - since >= timeout]
        freed: Counter[ConcurrencyLimiter] = Counter()
        for task, (limiter, slots) in self._held.items():  # the longest wait first
            waited = now - self._since[task]
            if waited < CONTENDED_TIMEOUT:
                break
            if freed[limiter] < limiter.lacking:
                freed[limiter] += slots
                if waited < timeout:
                    late.append(task)
        for task in late:
            self._held.pop(task, None)
            del self._since[task]
            self._expired.add(task)
            task.cancel()
        if self._since:
            self._arm()


@dataclass(frozen=True)
class Limits:
    """Limits of one request: tokens or ids, bytes of the body, and the time until it has arrived.

    `large` limits the requests with a large body or response in progress, which hold no slot of the others,
    and `bodies` the bytes of large bodies. The scheduler shares the event loop among large requests.
    `values` limits the values and lists in a JSON body: tokens or ids, each in a list of its own, and others.
    """

    tokens: int
    body: int
    timeout: BodyTimeout
    large: ConcurrencyLimiter
    bodies: ConcurrencyLimiter
    scheduler: Scheduler
    values: int

    @classmethod
    def of(cls, config: Config, count_queued: Callable[[int], None]) -> Limits:
        """Return the limits that the options set."""
        nbytes = max(config.max_body, min(LARGE_BODIES, config.max_body * config.max_concurrent_requests))
        queue = config.max_queue, config.request_timeout, count_queued
        return cls(
            config.max_batch_tokens,
            config.max_body,
            BodyTimeout(config.request_timeout),
            ConcurrencyLimiter(min(LARGE, config.max_concurrent_requests), *queue),
            ConcurrencyLimiter(nbytes, *queue, "bytes of large bodies"),
            Scheduler(),
            3 * config.max_batch_tokens + _OTHER_VALUES,
        )


class ConcurrencyLimiter:
    """Slots for requests in progress, and a bounded queue for them.

    The queue is first-in, first-out. If requests take more than one slot, every other grant goes to the one
    that takes the fewest, so that small ones need not wait for all large ones before them.

    Parameters
    ----------
    slots : int
        Slots taken at once, at least one by each request.
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
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._smallest_next = False

    @property
    def is_contended(self) -> bool:
        """Whether requests wait."""
        return bool(self._waiting)

    @property
    def lacking(self) -> int:
        """How many slots are too few for the requests that wait."""
        return sum(self._waiting.values()) - self._free if self._waiting else 0

    @property
    def has_free(self) -> bool:
        """Whether a request that asks for one slot gets it at once."""
        return self._free > 0 and not self._waiting

    def acquire(self, slots: int = 1) -> bool:
        """Take free slots; return False if there are too few, then `wait`."""
        if self._free >= slots and not self._waiting:
            self._free -= slots
            return True
        return False

    def check(self) -> None:
        """Raise `TooManyRequests` if there is neither a free slot nor room in the queue."""
        if self._free <= 0 and len(self._waiting) >= self._queue:
            raise self._full()

    async def wait(self, slots: int = 1) -> None:
        """Wait for slots.

        Raises
        ------
        TooManyRequests
            The queue is full.
        QueueTimeout
            Too few slots became free in time.
        """
        if len(self._waiting) >= self._queue:
            raise self._full()
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = slots
        self._count_queued(1)
        try:
            await asyncio.wait_for(turn, self._timeout)
        except asyncio.TimeoutError:
            if not turn.cancelled():
                return  # the slots were handed over at the same moment
            raise QueueTimeout(
                f"none of {self._slots} {self._noun} ended within {self._timeout:g} s; try again",
                headers=RETRY,
            ) from None
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.done():
                self.release(slots)
            raise
        finally:
            if self._waiting.pop(turn, None) is not None:
                # It may have kept others waiting that take fewer.
                self.release(0)
            self._count_queued(-1)

    def release(self, slots: int = 1) -> None:
        """Return slots, and grant those that are free to requests that wait."""
        self._free += slots
        waiting = self._waiting
        while waiting:
            turn = min(waiting, key=waiting.__getitem__) if self._smallest_next else next(iter(waiting))
            if not turn.done():
                if waiting[turn] > self._free:
                    return
                self._free -= waiting[turn]
                turn.set_result(None)
                self._smallest_next = not self._smallest_next
            del waiting[turn]

    def _full(self) -> TooManyRequests:
        return TooManyRequests(
            f"{self._noun} in progress: {self._slots}, waiting: {self._queue}, the most that this worker "
            f"takes{self._options}; try again",
            headers=RETRY,
        )
