"""The outermost layer: what happens to every request, whatever it asks for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from itertools import count
from time import perf_counter_ns

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ClientDisconnected, ServiceError

logger = logging.getLogger("smallfry.serve")

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Gate:
    """Name and time each request, and answer its errors in the one form that they have.

    Parameters
    ----------
    app : ASGI application
        The router behind the gate.
    direct : mapping of path to ASGI application
        Routes that are answered for POST without passing through the router: those where it would show.
    """

    def __init__(self, app: ASGIApp, direct: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._direct = direct
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter_ns()
        request_id = self._request_id(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", request_id))
                headers.append((b"server-timing", _timing(scope, started)))
            await send(message)

        app = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            await (app or self._app)(scope, receive, answer)
        except ClientDisconnected:
            return
        except ServiceError as error:
            await refuse(answer, error)
        except Exception:
            logger.exception("request %s failed", request_id.decode())
            if status:
                raise
            await refuse(answer, ServiceError("the server failed on this request; its log says why"))

    def _request_id(self, scope: Scope) -> bytes:
        """Return the client's own request ID, or a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return bytes(value)
        return f"{self._prefix}-{next(self._numbers):x}".encode()


async def refuse(send: Send, error: ServiceError) -> None:
    """Answer with an error."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _timing(scope: Scope, started: int) -> bytes:
    """Return ``Server-Timing``: the parts that the route has measured and the total, in milliseconds."""
    total = (perf_counter_ns() - started) / 1e6
    parts = scope.get("smallfry.timing", ())
    listed = "".join([f"{name};dur={duration / 1e6:.3f}, " for name, duration in parts])
    return f"{listed}total;dur={total:.3f}".encode()
