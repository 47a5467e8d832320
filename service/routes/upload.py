"""Upload of a ``.sfq`` file in a request body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from starlette.types import Message, Receive

from service.errors import ClientDisconnected
from service.http.body_timeout import BodyTimeout
from service.http.request import body_timeout
from smallfry.sfq.atomic import replacing


async def store(receive: Receive, target: Path, check: Callable[[Path], object], watch: BodyTimeout) -> None:
    """Replace `target` with the file in a request body, if the file passes a check.

    Parameters
    ----------
    receive : ASGI receive
        Where the body comes from.
    target : Path
    check : callable
        Raises if the file at the given path cannot be served.
    watch : BodyTimeout
        How long each piece of the body may take; the whole may take longer.

    Raises
    ------
    RequestTimeout
        The body stopped arriving.
    ClientDisconnected
        The client disconnected.
    """
    # A link in the folder is replaced: what it points to may be outside the folder.
    writing = replacing(target, check=check, follow_symlinks=False)
    async with contextmanager_in_threadpool(writing) as file:
        more = True
        while more:
            message = await _next(receive, watch)
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            more = message.get("more_body", False)
            await run_in_threadpool(file.write, message.get("body", b""))


async def _next(receive: Receive, watch: BodyTimeout) -> Message:
    task = watch.enter()
    try:
        return await receive()
    except asyncio.CancelledError:
        if not watch.leave(task):
            raise
        raise body_timeout(watch) from None
    finally:
        watch.leave(task)
