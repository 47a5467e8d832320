"""Taking a ``.sfq`` file from a request's body, whole and checked or not at all."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive

from service.errors import ClientDisconnected
from service.http.body_timeout import BodyTimeout
from service.http.request import body_timeout


async def store(receive: Receive, target: Path, check: Callable[[Path], object], watch: BodyTimeout) -> None:
    """Write a body beside `target`, check it there, and move it to `target`.

    Parameters
    ----------
    receive : ASGI receive
        Where the body comes from.
    target : Path
        What the file replaces, if it passes.
    check : callable
        Raises if the file at the path that it is given cannot be served.
    watch : BodyTimeout
        How long each piece of the body may take; the whole may take longer.

    Raises
    ------
    RequestTimeout
        The body stopped arriving.
    ClientDisconnected
        The client left.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            more = True
            while more:
                message = await _next(receive, watch)
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                more = message.get("more_body", False)
                await run_in_threadpool(file.write, message.get("body", b""))
            file.flush()
            await run_in_threadpool(os.fsync, file.fileno())
        await run_in_threadpool(check, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
