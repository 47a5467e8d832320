"""Reading a request's body within its limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from service.errors import ClientDisconnected, RequestTimeout, TooLarge


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], *, limit: int, timeout: float) -> bytes:
    """Return the whole body.

    Raises
    ------
    TooLarge
        It is, or says that it is, longer than `limit` bytes.
    RequestTimeout
        It has not arrived after `timeout` seconds.
    ClientDisconnected
        The client left.
    """
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise _too_large(int(length), limit)
    task = asyncio.current_task()
    assert task is not None
    timer = _Timer(task, timeout)
    try:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            pieces, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limit:
                    raise _too_large(size, limit)
            body = b"".join(pieces)
    except asyncio.CancelledError:
        if not timer.expired:
            raise
        raise RequestTimeout(
            f"the body did not arrive within {timeout:g} s", headers=((b"connection", b"close"),)
        ) from None
    finally:
        timer.cancel()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    if len(body) > limit:
        raise _too_large(len(body), limit)
    return body


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(
        f"the body is {size} bytes or more; this server takes {limit} (--max-body): split the request"
    )


class _Timer:
    """Cancel a task after some seconds, and remember that this was the reason."""

    __slots__ = ("_handle", "_task", "expired")

    def __init__(self, task: asyncio.Task[object], seconds: float) -> None:
        self._task = task
        self._handle = task.get_loop().call_later(seconds, self._expire)
        self.expired = False

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    def cancel(self) -> None:
        """Let the task run on."""
        self._handle.cancel()
