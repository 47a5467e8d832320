"""The outermost layer: what happens to every request, whatever it asks for."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import Keys
from service.errors import ClientDisconnected, NotAuthenticated, ServiceError, Unavailable
from service.limits import Admission
from service.metrics import Meter

logger = logging.getLogger("smallfry.access")
errors = logging.getLogger("smallfry.error")

#: What probes and scrapers ask for: answered at once, whatever the load.
UNLIMITED = frozenset({"/livez", "/readyz", "/health", "/metrics"})
#: What needs no key: health, and pages that hold no data.
OPEN = frozenset({"/livez", "/readyz", "/health", "/", "/docs", "/openapi.json"})

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_CLOSE = (b"connection", b"close")


@dataclass
class Lifecycle:
    """Where the process is between start and end."""

    draining: bool = False


class Gate:
    """Admit, name, time and count each request, and answer its errors in the one form that they have.

    Parameters
    ----------
    app : ASGI application
        The router behind the gate.
    direct : mapping of path to ASGI application
        Routes that are answered for POST without passing through the router: those where it would show.
    keys, admission, meter, lifecycle
        Who may ask, how many at once, where they are counted, and whether the process is ending.
    access_log : bool
        Whether to log each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, ASGIApp],
        *,
        keys: Keys,
        admission: Admission,
        meter: Meter,
        lifecycle: Lifecycle,
        access_log: bool,
    ) -> None:
        self._app = app
        self._direct = direct
        self._keys = keys
        self._admission = admission
        self._meter = meter
        self._lifecycle = lifecycle
        self._access_log = access_log
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter_ns()
        path: str = scope["path"]
        request_id = self._request_id(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", request_id))
                headers.append((b"server-timing", _timing(scope, started)))
                if self._lifecycle.draining:
                    headers.append(_CLOSE)
            await send(message)

        self._meter.enter()
        try:
            await self._admit(scope, receive, answer, path)
        except ClientDisconnected:
            status = 499
        except ServiceError as error:
            await refuse(answer, error)
        except asyncio.CancelledError:
            if status or not self._lifecycle.draining:
                raise
            await refuse(answer, Unavailable("the server is stopping; ask again"))
        except Exception:
            errors.exception("request %s failed", request_id.decode())
            if status:
                raise
            await refuse(answer, ServiceError("the server failed on this request; its log says why"))
        finally:
            duration = perf_counter_ns() - started
            self._meter.leave(path if path in self._direct else _route(scope), status, duration)
            if self._access_log:
                self._log(scope, request_id, status, duration)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        if self._keys.required and path not in OPEN:
            try:
                self._keys.check(dict(scope["headers"]))
            except NotAuthenticated:
                self._meter.reject("auth")
                raise
        direct = self._direct.get(path) if scope["method"] == "POST" else None
        if path in UNLIMITED:
            await self._app(scope, receive, send)
            return
        admission = self._admission
        if not admission.take():
            await admission.wait()
        try:
            await (direct or self._app)(scope, receive, send)
        finally:
            admission.leave()

    def _request_id(self, scope: Scope) -> bytes:
        """Return the client's own request ID, or a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return bytes(value)
        return f"{self._prefix}-{next(self._numbers):x}".encode()

    def _log(self, scope: Scope, request_id: bytes, status: int, nanoseconds: int) -> None:
        """Log a request; neither its headers nor its query, where keys could be."""
        milliseconds = nanoseconds / 1e6
        logger.info(
            "%s %s %d %.3f ms",
            scope["method"],
            scope["path"],
            status,
            milliseconds,
            extra={
                "fields": {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "duration_ms": round(milliseconds, 3),
                    "request_id": request_id.decode(),
                }
            },
        )


async def refuse(send: Send, error: ServiceError) -> None:
    """Answer with an error."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _route(scope: Scope) -> str:
    """Return the route that the router found, or nothing."""
    return getattr(scope.get("route"), "path", "")


def _timing(scope: Scope, started: int) -> bytes:
    """Return ``Server-Timing``: the parts that the route has measured and the total, in milliseconds."""
    total = (perf_counter_ns() - started) / 1e6
    parts = scope.get("smallfry.timing", ())
    listed = "".join([f"{name};dur={duration / 1e6:.3f}, " for name, duration in parts])
    return f"{listed}total;dur={total:.3f}".encode()
