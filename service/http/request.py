"""Requests: the body, its media type, and the accepted formats of the response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import (
    BodyTooLarge,
    ClientDisconnected,
    HeadTooLarge,
    NotAcceptable,
    RequestTimeout,
    UnsupportedMediaType,
)
from service.http.limits import ConcurrencyLimiter, Limits
from service.http.response import CLOSE, Headers
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS

FORMATS = (JSON, RAW, SAFETENSORS, PACKED)

#: Bytes of an ``Accept`` header, whose items are parsed before authentication.
_MAX_ACCEPT = 1024
#: Bytes of a body that are always received; larger ones wait for free bytes, and are parsed in a slice of
#: the event loop of their own.
_PREFETCH = 1 << 14


def join_repeated(headers: Headers) -> dict[bytes, bytes]:
    """Return headers by name; the values of repeated ones are joined with commas, as RFC 9110 says.

    Of headers that hold no list, such as ``Content-Type``, that gives no valid value.
    """
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def route_path(scope: Scope) -> str:
    """Return the path of a request without the prefix under which the application is mounted."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


class RootPath:
    """ASGI middleware for a proxy that publishes the server under a prefix, which it may remove or not."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its path gets the prefix, as ASGI requires, if it has none."""
        if "path" in scope:
            path = route_path({"path": scope["path"], "root_path": self._prefix})
            scope = {**scope, "root_path": self._prefix, "path": self._prefix + path}
        await self._app(scope, receive, send)


class RequestBody:
    """The body of a request, received within the limits of size and time.

    Parameters
    ----------
    receive : ASGI receive
    headers : mapping
    limits : Limits
    """

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes], limits: Limits) -> None:
        self._receive = receive
        self._headers = headers
        self._limits = limits
        self._chunks: list[bytes] = []
        self._size = 0
        self._complete = False
        self._disconnected = False
        self._most = self.reserved = 0

    def prefetch(self) -> Awaitable[None]:
        """Receive a small body, or the beginning of a large one.

        Raises
        ------
        BodyTooLarge
            ``Content-Length`` exceeds the limit.
        RequestTimeout
            The body did not arrive in time.
        """
        self._most = self._check_length()
        return self._receive_more(min(_PREFETCH, self._limits.body))

    async def receive(self) -> None:
        """Receive the rest of a large body, once there is room for it.

        Raises
        ------
        RequestTimeout
            The body did not arrive in time.
        TooManyRequests, QueueTimeout
            Too many large bodies are in progress.
        """
        bodies, nbytes = self._limits.bodies, min(self._size, self._most) if self._complete else self._most
        if not bodies.acquire(nbytes):
            await bodies.wait(nbytes)
        self.reserved = nbytes
        await self._receive_more(self._limits.body, (bodies, nbytes))

    def release(self) -> None:
        """Return the room that `receive` has taken."""
        self._limits.bodies.release(self.reserved)
        self.reserved = 0

    async def read(self) -> bytes:
        """Return the whole body, once; a large one in a slice of the event loop.

        Raises
        ------
        BodyTooLarge
            The body, or its ``Content-Length``, exceeds the limit.
        RequestTimeout
            The body did not arrive in time.
        ClientDisconnected
            The client left.
        """
        if not self._complete:
            self._check_length()
            await self._receive_more(self._limits.body)
        if self._disconnected:
            raise ClientDisconnected
        if self._size > self._limits.body:
            raise self._too_large(self._size)
        if self._size > _PREFETCH:
            await self._limits.scheduler.turn(0)
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def is_large(self) -> bool:
        """Whether the part that has arrived exceeds what is always received."""
        return self._size > _PREFETCH

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks: any size, but each chunk within the time limit.

        Raises
        ------
        RequestTimeout
            A chunk did not arrive in time.
        ClientDisconnected
            The client left.
        """
        while not self._complete:
            await self._receive_more(self._size)
            if self._disconnected:
                raise ClientDisconnected
            yield self._chunks.pop()

    async def _receive_more(self, most: int, held: tuple[ConcurrencyLimiter, int] | None = None) -> None:
        """Receive up to the end of the body, or until it has more than `most` bytes."""
        timeout = self._limits.timeout
        task = timeout.enter(held)
        try:
            while not self._complete and self._size <= most:
                message = await self._receive()
                chunk = message.get("body", b"")
                self._chunks.append(chunk)
                self._size += len(chunk)
                self._complete = not message.get("more_body", False)
                self._disconnected = message["type"] == "http.disconnect"
        except asyncio.CancelledError:
            if not timeout.leave(task):
                raise
            raise RequestTimeout(
                f"the body did not arrive within {timeout.timeout:g} s (--request-timeout), or less while "
                "other bodies wait",
                headers=(CLOSE,),
            ) from None
        finally:
            timeout.leave(task)

    def _check_length(self) -> int:
        """Return the most bytes that the body may have."""
        length = self._headers.get(b"content-length")
        if length is None:
            return self._limits.body
        if int(length) > self._limits.body:
            raise self._too_large(int(length))
        return int(length)

    def _too_large(self, size: int) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body has {size} bytes or more; this server takes {self._limits.body} (--max-body): "
            "split the request"
        )


def media_type(headers: Mapping[bytes, bytes], expected: Sequence[str]) -> str:
    """Return the media type of a body: the first expected one if the header is missing.

    Raises
    ------
    UnsupportedMediaType
        The type is not an expected one, or the body is compressed.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding.decode('latin-1')!r}; this server reads uncompressed bodies",
            param="Content-Encoding",
        )
    header = headers.get(b"content-type")
    if header is None:
        return expected[0]
    name = header.partition(b";")[0].strip().lower().decode("latin-1")
    if name not in expected:
        raise UnsupportedMediaType(
            f"Content-Type is {name!r}; this route reads {' and '.join(expected)}", param="Content-Type"
        )
    return name


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None, formats: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """Return those of a route's formats that an ``Accept`` header allows, the preferred one first.

    The most specific media range that matches a format gives its quality. Formats are ordered by quality,
    then by the header's order, then by the route's. Without a header it is the route's first.

    Raises
    ------
    NotAcceptable
        The header allows none of them.
    HeadTooLarge
        The header is too long.
    """
    if accept is None or not accept.strip():
        return formats[:1]
    if len(accept) > _MAX_ACCEPT:
        raise HeadTooLarge(f"Accept has {len(accept)} bytes; this server reads {_MAX_ACCEPT}", param="Accept")
    qualities: dict[str, float] = {}
    for item in accept.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        qualities.setdefault(name, _quality(parameters))
    order = list(qualities)
    ranked = []
    for rank, format in enumerate(formats):
        ranges = (format, format.partition("/")[0] + "/*", "*/*")
        match = next((name for name in ranges if name in qualities), None)
        if match is not None and qualities[match] > 0:
            ranked.append((-qualities[match], order.index(match), rank))
    if not ranked:
        raise NotAcceptable(
            f"Accept is {accept.decode('latin-1')!r}; this route returns {', '.join(formats)}", param="Accept"
        )
    return tuple(formats[rank] for *_, rank in sorted(ranked))


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
