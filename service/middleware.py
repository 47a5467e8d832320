"""The outermost layer: authentication, limits, metrics and errors of every request."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from time import perf_counter_ns

from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service.errors import ClientDisconnected, FileDamaged, OutOfMemory, ServiceError, Stopping
from service.http.limits import RETRY, ConcurrencyLimiter
from service.http.request import RequestBody, route_path
from service.http.response import CLOSE, SCHEDULER, Headers, error_response
from service.observability.logging import log_request
from service.routes.endpoint import Endpoint
from service.routes.openapi import Api
from service.server import Server
from smallfry import SfqError

errors = logging.getLogger("smallfry.error")

#: Paths of probes and scrapers, which take no concurrency slot.
UNLIMITED = frozenset({"/livez", "/readyz", "/health", "/metrics"})
#: Requests with a large body or response in progress at once: they hold no slot of the others.
LARGE = 128
#: Paths that need no key, besides those of static files.
OPEN = frozenset({"/livez", "/readyz", "/health", "/", "/openapi.json"})
#: Headers of the requests by which browsers ask whether another origin may send a request.
PREFLIGHT = frozenset({b"origin", b"access-control-request-method"})

_FILE = re.compile("/models/[^/]+/file")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestMiddleware:
    """Authenticate, limit, time and count each request, and turn its errors into responses.

    Parameters
    ----------
    app : Api
        The router.
    endpoints : mapping of path to Endpoint
        POST routes that are called without the router.
    server : Server
    public : iterable of str
        Paths of static files, which need no key.
    cors : CORSMiddleware, optional
        Responds to preflights, and adds its headers to all other responses, errors included.
    """

    def __init__(
        self,
        app: Api,
        endpoints: Mapping[str, Endpoint],
        server: Server,
        public: Iterable[str],
        cors: CORSMiddleware | None = None,
    ) -> None:
        config = server.config
        self._app = app
        self._endpoints = endpoints
        self._paths = {route.path for route in app.routes if isinstance(route, Route)}
        self._cors = cors
        self._open = OPEN.union(public)
        self._keys = server.keys
        self._limits = server.limits
        self._meter = server.meter
        self._lifecycle = server.lifecycle
        limits = config.max_queue, config.request_timeout, server.meter.count_queued
        self._slots = ConcurrencyLimiter(config.max_concurrent_requests, *limits)
        self._large = ConcurrencyLimiter(min(LARGE, config.max_concurrent_requests), *limits)
        self._observers: list[Callable[[Scope, str, bytes, int, int], None]] = []
        if config.access_log:
            self._observers.append(log_request)
        if config.tracing:
            from service.observability import tracing

            self._observers.append(tracing.record)
        self._number_requests()
        os.register_at_fork(after_in_child=self._number_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter_ns()
        path = route_path(scope)
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s%06x" % (self._prefix, next(self._numbers))
        status, preflight = 0, None
        if self._cors is not None:
            request_headers = RequestHeaders(scope=scope)
            if scope["method"] == "OPTIONS" and headers.keys() >= PREFLIGHT:
                preflight = self._cors.preflight_response(request_headers)
            else:
                send = partial(self._cors.send, send=send, request_headers=request_headers)

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(message["headers"], request_id, started, b"")
            await send(message)

        self._meter.enter()
        try:
            if preflight is not None:
                await preflight(scope, receive, finish)
                return
            endpoint = self._endpoints.get(path) if scope["method"] == "POST" else None
            if self._keys.required and path not in self._open:
                self._keys.check(scope["headers"])
            if path in UNLIMITED:
                await self._app(scope, receive, finish)
                return
            if endpoint is not None:
                body = RequestBody(receive, headers, self._limits)
                await body.prefetch()
                large = body.is_large
            else:
                large = _FILE.fullmatch(path) is not None
            slots = self._large if large else self._slots
            if not slots.acquire():
                await slots.wait()
            held: ConcurrencyLimiter | None = slots
            try:
                if endpoint is None:
                    scope[SCHEDULER] = self._limits.scheduler
                    await self._app(scope, receive, finish)
                    return
                response = await endpoint.respond(headers, scope["query_string"], body)
                if response.is_large:
                    scope[SCHEDULER] = self._limits.scheduler
                    if held is self._slots:
                        held = None
                        self._slots.release()
                        if not self._large.acquire():
                            await self._large.wait()
                        held = self._large
                status = response.status_code
                self._complete(response.raw_headers, request_id, started, response.timing)
                await response(scope, receive, send)
            finally:
                if held is not None:
                    held.release()
        except ClientDisconnected:
            status = 499
        except ServiceError as error:
            self._meter.reject(error.reason)
            await error_response(error)(scope, receive, finish)
        except asyncio.CancelledError:
            if status or not self._lifecycle.draining:
                raise
            self._meter.reject(Stopping.reason)
            await error_response(Stopping("the server is stopping; try again"))(scope, receive, finish)
        except Exception as error:
            failure = _failure(error, request_id.decode())
            if status:
                # The response is cut off.
                status = failure.status
                raise
            await error_response(failure)(scope, receive, finish)
        finally:
            duration = perf_counter_ns() - started
            # Preflights have no route.
            route = path if preflight is None and path in self._paths else _route(scope)
            self._meter.leave(route, status, duration)
            for observe in self._observers:
                observe(scope, route, request_id, status, duration)

    def _number_requests(self) -> None:
        """Start numbering requests, under a prefix of this process."""
        self._prefix = os.urandom(6).hex().encode()
        self._numbers = count(1)

    def _complete(self, headers: Headers, request_id: bytes, started: int, timing: bytes) -> None:
        """Add the headers common to all responses."""
        headers.append((b"x-request-id", request_id))
        total = (perf_counter_ns() - started) / 1e6
        headers.append((b"server-timing", b"%stotal;dur=%.3f" % (timing, total)))
        if self._lifecycle.closing:
            headers.append(CLOSE)


def _failure(error: Exception, request_id: str) -> ServiceError:
    """Log an error that the request did not cause; return the error for the client."""
    if isinstance(error, MemoryError):
        errors.error("request %s: not enough memory: %s", request_id, error)
        return OutOfMemory("the response needs more memory than is free; request less", headers=RETRY)
    if isinstance(error, SfqError):
        errors.error("request %s: %s", request_id, error)
        return FileDamaged(f"the model cannot serve this request: {error}")
    errors.exception("request %s failed", request_id)
    return ServiceError("the server failed on this request; see its log")


def _route(scope: Scope) -> str:
    """Return the path template of the route that the router found, or an empty string."""
    return getattr(scope.get("route"), "path", "")
