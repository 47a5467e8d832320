"""Ending what takes too long: one timer for all requests, not one for each."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any


class BodyTimeout:
    """Cancels tasks that are in a step for too long.

    A timer of its own costs a request more than finding its tokens. Here entering a step is one assignment,
    and all tasks in a step are looked at together, about ten times within the timeout; with no task in one
    there is no timer.

    Parameters
    ----------
    timeout : float
        Seconds that a step may take, give or take a tenth.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._since: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._armed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> asyncio.Task[Any]:
        """Begin a step of the current task, and return the task."""
        # Naming the loop spares a system call: without it, asyncio asks for the process's number.
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._since[task] = monotonic()
        if not self._armed:
            self._arm()
        return task

    def leave(self, task: asyncio.Task[Any]) -> bool:
        """End a step; say whether it was cancelled for its length."""
        self._since.pop(task, None)
        if task in self._expired:
            self._expired.remove(task)
            return True
        return False

    def _arm(self) -> None:
        self._armed = True
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(self.timeout / 10, self._look)

    def _look(self) -> None:
        self._armed = False
        latest = monotonic() - self.timeout
        for task in [task for task, since in self._since.items() if since <= latest]:
            del self._since[task]
            self._expired.add(task)
            task.cancel()
        if self._since:
            self._arm()
