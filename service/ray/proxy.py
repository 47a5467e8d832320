"""What Ray Serve's proxies add to requests and answers; loaded by them, and itself free of Ray.

``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray.proxy:middlewares`` installs it.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import Config
from service.errors import QueueTimeout, ServiceError, TooManyRequests, Unavailable
from service.http.limits import RETRY
from service.http.response import error_response
from service.ray.model_id import asked_model

#: Added to answers by replicas that have some of the vocabularies open: requests should go where theirs is.
SPREAD = (b"x-smallfry-spread", b"1")

_MODEL = b"serve_multiplexed_model_id"
#: Where Serve's proxies tell of themselves.
_OPERATION = "/-/"


def middlewares() -> list[Middleware]:
    """Return what Serve puts before its proxies."""
    return [Middleware(Contract)]


class Contract:
    """Route requests to replicas that have their vocabulary open; give all errors the one form.

    Parameters
    ----------
    app : ASGI application
        Serve's proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._spread = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith(_OPERATION):
            await self._app(scope, receive, send)
            return
        if self._spread:
            name, receive = await asked_model(scope, receive, Config.max_body)
            if name is not None:
                scope = {**scope, "headers": [*scope["headers"], (_MODEL, name.encode())]}
        started = False
        refused: ServiceError | None = None

        async def forward(message: Message) -> None:
            nonlocal started, refused
            if message["type"] == "http.response.start":
                started = True
                refused = _proxys_own(message)
                if refused is None:
                    self._spread = SPREAD in message["headers"]
                    headers = [pair for pair in message["headers"] if pair != SPREAD]
                    message = {**message, "headers": headers}
            if refused is None:
                await send(message)

        await self._app(scope, receive, forward)
        if not started:
            refused = Unavailable("the replica that had this request is gone; ask again", headers=RETRY)
        if refused is not None:
            await error_response(refused)(scope, receive, send)


def _proxys_own(start: Message) -> ServiceError | None:
    """Return the error that an answer of the proxy stands for; None where it is a replica's."""
    status: int = start["status"]
    if not dict(start["headers"]).get(b"content-type", b"").startswith(b"text/plain"):
        return None
    if status == 429:
        return TooManyRequests(
            "all replicas are busy, and as many requests wait as may; try again", headers=RETRY
        )
    if status == 408:
        return QueueTimeout("the request was not answered in time; try again", headers=RETRY)
    if status in (500, 503):
        return Unavailable("no replica answers this now; ask again", headers=RETRY)
    return None
