"""The mean of a model's rows, for ``oov: "mean"``: computed once, for all requests."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service.errors import QueueTimeout, TooManyRequests
from service.http.limits import RETRY
from service.models.model import Model

#: Requests in a worker that may wait for means; further ones are rejected.
WAITING = 8


class Means:
    """Computes means in a thread, outside the interpreter's lock, one at a time in each worker.

    Parameters
    ----------
    timeout : float
        Seconds that a request may wait; the computation continues.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, "means")
        self._waiting = 0

    async def compute(self, model: Model) -> None:
        """Wait until the mean of a model is computed.

        Raises
        ------
        TooManyRequests
            `WAITING` requests wait already.
        QueueTimeout
            It is not computed within the timeout.
        """
        if self._waiting >= WAITING:
            raise TooManyRequests(
                f"requests that wait for the mean of a model: {WAITING}, the most that this worker takes; "
                "try again",
                headers=RETRY,
            )
        task: asyncio.Task[None] | None = model.derived.get(Means)
        if task is None or task.done():
            task = model.derived[Means] = asyncio.ensure_future(self._sum(model))
        self._waiting += 1
        try:
            await asyncio.wait_for(asyncio.shield(task), self._timeout)
        except asyncio.TimeoutError:
            raise QueueTimeout(
                f"the mean of {model.name!r} was not computed within {self._timeout:g} s; try again",
                headers=RETRY,
            ) from None
        finally:
            self._waiting -= 1

    async def _sum(self, model: Model) -> None:
        """Compute a mean in parts, so that a shutdown waits only for one."""
        loop, parts = asyncio.get_running_loop(), model.store.compute_mean()
        while await loop.run_in_executor(self._thread, next, parts, None) is not None:
            pass
