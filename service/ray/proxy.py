"""Middleware of Ray Serve's proxies: model routing and error format. It does not import Ray.

``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray.proxy:middlewares`` installs it.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import Config
from service.errors import QueueTimeout, ServiceError, TooManyRequests, Unavailable
from service.http.limits import RETRY
from service.http.response import error_response
from service.ray.model_id import requested_model

#: Header of responses from replicas with model multiplexing; the proxy then routes requests by model.
MULTIPLEXED = (b"x-smallfry-spread", b"1")

_MODEL = b"serve_multiplexed_model_id"
#: Serve's own routes.
_OPERATION = "/-/"


def middlewares() -> list[Middleware]:
    """Return the middleware that Serve adds to its proxies."""
    return [Middleware(ProxyMiddleware)]


class ProxyMiddleware:
    """Route requests to replicas that have their model open, and give Serve's errors the server's form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._multiplexed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(_OPERATION):
            await self._app(scope, receive, send)
            return
        if self._multiplexed:
            name, receive = await requested_model(scope, receive, Config.max_body)
            if name is not None:
                scope = {**scope, "headers": [*scope["headers"], (_MODEL, name.encode())]}
        started = False
        error: ServiceError | None = None

        async def forward(message: Message) -> None:
            nonlocal started, error
            if message["type"] == "http.response.start":
                started = True
                error = _proxy_error(message)
                if error is None:
                    self._multiplexed = MULTIPLEXED in message["headers"]
                    headers = [pair for pair in message["headers"] if pair != MULTIPLEXED]
                    message = {**message, "headers": headers}
            if error is None:
                await send(message)

        await self._app(scope, receive, forward)
        if not started:
            error = Unavailable("the replica that served this request is gone; try again", headers=RETRY)
        if error is not None:
            await error_response(error)(scope, receive, send)


def _proxy_error(start: Message) -> ServiceError | None:
    """Return the error behind a response of the proxy itself; None for a response of a replica."""
    status: int = start["status"]
    if not dict(start["headers"]).get(b"content-type", b"").startswith(b"text/plain"):
        return None
    if status == 429:
        return TooManyRequests("all replicas are busy and the queue is full; try again", headers=RETRY)
    if status == 408:
        return QueueTimeout("the request timed out; try again", headers=RETRY)
    if status in (500, 503):
        return Unavailable("no replica is available; try again", headers=RETRY)
    return None
