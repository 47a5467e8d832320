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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ClientDisconnected, FileDamaged, OutOfMemory, ServiceError, Stopping
from service.http.browsers import PageGuard
from service.http.limits import RETRY, ConcurrencyLimiter
from service.http.repeat import KEEP_HEAD, Serve, Write
from service.http.request import RequestBody, join_repeated, route_path
from service.http.response import CLOSE, SCHEDULER, Headers, Response, error_response, header_lines
from service.observability.logging import log_request
from service.routes.endpoint import Endpoint
from service.routes.openapi import Api
from service.server import Server
from smallfry import SfqError

errors = logging.getLogger("smallfry.error")

PROBES = frozenset({"/livez", "/readyz", "/health"})
#: Paths that need no key, besides those of static files.
OPEN = PROBES | {"/", "/openapi.json"}
#: Headers of the requests by which browsers ask whether another origin may send a request.
PREFLIGHT = frozenset({"origin", "access-control-request-method"})

_READING = frozenset({"GET", "HEAD"})
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
        self._pages = PageGuard(server.config)
        self._limits = server.limits
        self._meter = server.meter
        self._lifecycle = server.lifecycle
        limits = config.max_queue, config.request_timeout, server.meter.count_queued
        self._slots = ConcurrencyLimiter(config.max_concurrent_requests, *limits)
        self._large = server.limits.large
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
        if len(headers) < len(scope["headers"]):
            headers = join_repeated(scope["headers"])
            scope["headers"] = [*headers.items()]
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = self._new_id()
        status, timing, preflight = 0, b"", None
        if self._cors is not None:
            send, preflight = _share(self._cors, scope, send)

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(message["headers"], request_id, started, timing)
            await send(message)

        self._meter.enter()
        try:
            if preflight is not None:
                await preflight(scope, receive, finish)
                return
            if path not in self._open:
                if self._keys.required:
                    self._keys.check(scope["headers"])
                else:
                    self._pages.check(scope["method"], headers)
            endpoint = self._endpoints.get(path) if scope["method"] == "POST" else None
            if endpoint is None:
                await self._dispatch(path, scope, receive, finish)
                return
            response, slots = await self._respond(endpoint, headers, scope, receive)
            try:
                if response.is_large:
                    scope[SCHEDULER] = self._limits.scheduler
                    timing = response.timing
                    await response(scope, receive, finish)
                    return
                status = response.status_code
                self._complete(response.raw_headers, request_id, started, response.timing)
                if response.repeat is not None and KEEP_HEAD in scope and self._cors is None:
                    scope[KEEP_HEAD](self._repeater(response.repeat, path, headers, scope))
                await response(scope, receive, send)
            finally:
                if slots is not None:
                    slots.release()
        except ClientDisconnected:
            status = 499
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not self._lifecycle.draining:
                raise
            failure = _failure(error, request_id)
            self._meter.reject(failure.reason)
            if status:
                # The response is cut off.
                status = failure.status
                raise
            await error_response(failure)(scope, receive, finish)
        finally:
            # Preflights have no route.
            route = path if preflight is None and path in self._paths else _route(scope)
            self._record(scope, route, request_id, status, perf_counter_ns() - started)

    async def _dispatch(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the router, in a slot if a file is sent or the server changes."""
        scope[SCHEDULER] = self._limits.scheduler
        if _FILE.fullmatch(path):
            slots = self._large
        elif scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        else:
            slots = self._slots
        if not slots.acquire():
            await slots.wait()
        try:
            await self._app(scope, receive, send)
        finally:
            slots.release()

    async def _respond(
        self, endpoint: Endpoint, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive
    ) -> tuple[Response, ConcurrencyLimiter | None]:
        """Call an endpoint; return the response, and the limiter whose slot it holds until it is sent."""
        body = RequestBody(receive, headers, self._limits)
        try:
            await body.prefetch()
            slots = self._slots
            if body.is_large:
                slots = self._large
                await body.receive()
            if not slots.acquire():
                await slots.wait()
            try:
                response = await endpoint.respond(headers, scope["query_string"], body)
            except BaseException:
                slots.release()
                raise
        finally:
            if body.reserved:
                body.release()
        if not response.holds_slot:
            slots.release()
            return response, None
        if response.is_large and slots is self._slots:
            slots.release()
            slots = self._large
            if not slots.acquire():
                await slots.wait()
        return response, slots

    def _repeater(
        self,
        respond: Callable[[bytes], Response | None],
        route: str,
        headers: Mapping[bytes, bytes],
        scope: Scope,
    ) -> Serve:
        """Return a function that serves requests with the head of one that has been served."""

        def serve(body: bytes, fields: Mapping[bytes, bytes], write: Write) -> bool:
            started = perf_counter_ns()
            if self._lifecycle.closing or not self._slots.has_free or len(body) > self._limits.body:
                return False
            try:
                response = respond(body)
            except Exception:
                return False  # raised again, and answered, in the general way
            if response is None:
                return False
            lines = response.lines or header_lines(response.raw_headers)
            request_id = fields.get(b"x-request-id") or self._new_id()
            timing = _server_timing(response.timing, started)
            write(
                [
                    lines,
                    b"x-request-id: %b\r\nserver-timing: %b\r\n\r\n" % (request_id, timing),
                    *response.chunks,
                ]
            )
            duration = perf_counter_ns() - started
            self._meter.count(route, 200, duration)
            if self._observers:
                own = {**scope, "headers": [*{**headers, **fields}.items()]}
                for observe in self._observers:
                    observe(own, route, request_id, 200, duration)
            return True

        return serve

    def _record(self, scope: Scope, route: str, request_id: bytes, status: int, nanoseconds: int) -> None:
        """Count a completed request; log and trace it if configured."""
        self._meter.leave(route, status, nanoseconds)
        for observe in self._observers:
            observe(scope, route, request_id, status, nanoseconds)

    def _number_requests(self) -> None:
        """Start numbering requests, under a prefix of this process."""
        self._prefix = os.urandom(6).hex().encode()
        self._numbers = count(1)

    def _new_id(self) -> bytes:
        return b"%s%06x" % (self._prefix, next(self._numbers))

    def _complete(self, headers: Headers, request_id: bytes, started: int, timing: bytes) -> None:
        """Add the headers common to all responses."""
        headers.append((b"x-request-id", request_id))
        headers.append((b"server-timing", _server_timing(timing, started)))
        if self._lifecycle.closing:
            headers.append(CLOSE)


def _server_timing(parts: bytes, started: int) -> bytes:
    return b"%btotal;dur=%.3f" % (parts, (perf_counter_ns() - started) / 1e6)


def _share(cors: CORSMiddleware, scope: Scope, send: Send) -> tuple[Send, ASGIApp | None]:
    """Return a `send` that adds the CORS headers, and the response if the request is a preflight."""
    headers = RequestHeaders(scope=scope)
    if scope["method"] == "OPTIONS" and PREFLIGHT.issubset(headers.keys()):
        return send, cors.preflight_response(headers)
    return partial(cors.send, send=send, request_headers=headers), None


def _failure(error: BaseException, request_id: bytes) -> ServiceError:
    """Return the error for the client; log one that the request did not cause."""
    if isinstance(error, ServiceError):
        # Its frames hold the request's body, and the caller's refers to the error: a cycle.
        return error.with_traceback(None)
    if isinstance(error, asyncio.CancelledError):
        return Stopping("the server is stopping; try again")
    name = request_id.decode()
    if isinstance(error, MemoryError):
        errors.error("request %s: not enough memory: %s", name, error)
        return OutOfMemory("the response needs more memory than is free; request less", headers=RETRY)
    if isinstance(error, SfqError):
        errors.error("request %s: %s", name, error)
        return FileDamaged(f"the model cannot serve this request: {error}")
    errors.exception("request %s failed", name)
    return ServiceError("the server failed on this request; see its log")


def _route(scope: Scope) -> str:
    """Return the path template of the route that the router found, or an empty string."""
    return getattr(scope.get("route"), "path", "")
