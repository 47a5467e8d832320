"""Responses that cost much more than their requests: concurrent requests share one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Any, TypeVar

from service.http.response import Response
from smallfry.media_types import JSON

T = TypeVar("T")

#: The pause after a rendering, in multiples of its time: all together take a tenth of a core.
PAUSE = 9
#: The longest pause in seconds.
LONGEST = 0.5
#: Bytes of a large body that are sent at once.
_CHUNK = 1 << 16


class Renderer:
    """Renders one response at a time, with pauses in between.

    Requests that arrive before their rendering begins share it. So no response is older than its request, and
    no number of requests takes more than a share of the worker's time.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._pause_ends = 0.0
        self._next: dict[Hashable, asyncio.Task[Any]] = {}

    async def respond(
        self, key: Hashable, render: Callable[[], Awaitable[bytes]], media_type: str = JSON
    ) -> Response:
        """Return a response with the body that `share` returns."""
        body = memoryview(await self.share(key, render))
        headers = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
        chunks = (body[at : at + _CHUNK] for at in range(0, len(body), _CHUNK))
        return Response(headers, chunks, len(body))

    async def share(self, key: Hashable, render: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `render`, called for all requests of the same key that wait for it."""
        task: asyncio.Task[T] | None = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.ensure_future(self._run(key, render))
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, render: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._lock:
                if (pause := self._pause_ends - monotonic()) > 0:
                    await asyncio.sleep(pause)
                del self._next[key]
                started = monotonic()
                try:
                    return await render()
                finally:
                    ended = monotonic()
                    self._pause_ends = ended + min(LONGEST, PAUSE * (ended - started))
        except asyncio.CancelledError:
            self._next.pop(key, None)
            raise
