"""The outermost layer: what happens to every request, whatever it asks for."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from itertools import count
from time import perf_counter_ns

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import (
    ClientDisconnected,
    FileDamaged,
    OutOfMemory,
    ServiceError,
    Stopping,
)
from service.http.auth import Keys
from service.http.limits import RETRY, ConcurrencyLimiter, Limits
from service.http.protocol import CLOSE
from service.http.request import await_body
from service.http.response import Endpoint, Headers, refusal
from service.lifecycle import Lifecycle
from service.observability.metrics import Meter
from service.routes import dashboard
from smallfry import SfqError

logger = logging.getLogger("smallfry.access")
errors = logging.getLogger("smallfry.error")

#: What probes and scrapers ask for: answered at once, whatever the load.
UNLIMITED = frozenset({"/livez", "/readyz", "/health", "/metrics"})
#: What needs no key: health, and pages that hold no data.
OPEN = frozenset(
    {"/livez", "/readyz", "/health", "/", "/openapi.json", *dashboard.PATHS, *dashboard.REFERENCE_PATHS}
)

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestMiddleware:
    """Admit, name, time and count each request, and answer its errors in the one form that they have.

    Parameters
    ----------
    app : ASGI application
        The router behind the gate.
    direct : mapping of path to Endpoint
        Routes that are answered for POST without passing through the router: those where it would show.
    keys, admission, limits, meter, lifecycle
        Who may ask, how many at once and for how much, where they are counted, and whether the process is
        ending.
    access_log : bool
        Whether to log each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, Endpoint],
        *,
        keys: Keys,
        admission: ConcurrencyLimiter,
        limits: Limits,
        meter: Meter,
        lifecycle: Lifecycle,
        access_log: bool,
    ) -> None:
        self._app = app
        self._direct = direct
        self._keys = keys
        self._admission = admission
        self._limits = limits
        self._meter = meter
        self._lifecycle = lifecycle
        self._access_log = access_log
        self._number_requests()
        os.register_at_fork(after_in_child=self._number_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter_ns()
        path: str = scope["path"]
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s%06x" % (self._prefix, next(self._numbers))
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(message["headers"], request_id, started, b"")
            await send(message)

        self._meter.enter()
        try:
            endpoint = self._direct.get(path) if scope["method"] == "POST" else None
            if self._keys.required and path not in OPEN:
                self._keys.check(headers)
            if path in UNLIMITED:
                await self._app(scope, receive, finish)
                return
            if endpoint is not None:
                receive = await await_body(receive, headers, self._limits)
            if not self._admission.take():
                await self._admission.wait()
            try:
                if endpoint is None:
                    await self._app(scope, receive, finish)
                    return
                reply = await endpoint.answer(headers, scope, receive)
                status = reply.status
                self._complete(reply.headers, request_id, started, reply.timing)
                await reply.send(send)
            finally:
                self._admission.leave()
        except ClientDisconnected:
            status = 499
        except ServiceError as error:
            self._meter.reject(error.reason)
            await refusal(error).send(finish)
        except asyncio.CancelledError:
            if status or not self._lifecycle.draining:
                raise
            self._meter.reject(Stopping.reason)
            await refusal(Stopping("the server is stopping; ask again")).send(finish)
        except Exception as error:
            failure = _failure(error, request_id.decode())
            if status:
                raise
            await refusal(failure).send(finish)
        finally:
            duration = perf_counter_ns() - started
            self._meter.leave(path if path in self._direct else _route(scope), status, duration)
            if self._access_log:
                self._log(scope, request_id, status, duration)

    def _number_requests(self) -> None:
        """Begin to number requests, in each process under a prefix of its own."""
        self._prefix = os.urandom(6).hex().encode()
        self._numbers = count(1)

    def _complete(self, headers: Headers, request_id: bytes, started: int, timing: bytes) -> None:
        """Add the headers that every answer has."""
        headers.append((b"x-request-id", request_id))
        total = (perf_counter_ns() - started) / 1e6
        headers.append((b"server-timing", b"%stotal;dur=%.3f" % (timing, total)))
        if self._lifecycle.closing:
            headers.append(CLOSE)

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


def _failure(error: Exception, request_id: str) -> ServiceError:
    """Log an error that is none of the request's, and return what the client is told of it."""
    if isinstance(error, MemoryError):
        errors.error("request %s: not enough memory: %s", request_id, error)
        return OutOfMemory("the answer takes more memory than there is now; ask for less", headers=RETRY)
    if isinstance(error, SfqError):
        errors.error("request %s: %s", request_id, error)
        return FileDamaged(f"the model cannot answer this: {error}")
    errors.exception("request %s failed", request_id)
    return ServiceError("the server failed on this request; its log says why")


def _route(scope: Scope) -> str:
    """Return the route that the router found, or nothing."""
    return getattr(scope.get("route"), "path", "")
