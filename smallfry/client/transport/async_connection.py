"""Connections of the asynchronous client, over asyncio."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import cast

from smallfry.client.errors import ProtocolError, TransportError
from smallfry.client.transport.address import Address
from smallfry.client.transport.connection import (
    RECEIVE_BYTES,
    StaleConnection,
    incomplete,
    lost,
    not_connected,
)
from smallfry.client.transport.http import ResponseReader
from smallfry.client.transport.messages import MAX_JSON, Response
from smallfry.client.transport.tls import tls_context


class AsyncConnection(asyncio.BufferedProtocol):
    """A connection that carries one request at a time."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._reader = ResponseReader()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._closed = False
        self._response: asyncio.Future[Response] | None = None

    async def send(self, data: bytes, limit: int) -> Response:
        """Send one request and return its response; raises as `Connection.send` does."""
        if self._closed:
            raise StaleConnection("the server closed the idle connection")
        self._reader.reset(limit)
        loop = asyncio.get_running_loop()
        self._response = loop.create_future()
        timer = loop.call_later(self._timeout, self._expire)
        try:
            self._transport.write(data)
            return await self._response
        finally:
            timer.cancel()
            self._response = None

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow the last response."""
        return self._reader.keep_alive and not self._closed

    @property
    def stale(self) -> bool:
        """Whether the server has closed the idle connection or sent bytes on it."""
        return self._closed or bool(self._poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._transport.abort()

    def _expire(self) -> None:
        self._fail(incomplete(self._address, self._timeout))

    def _fail(self, error: TransportError) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)

    # Callbacks of asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put a part of the response."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse a part of the response."""
        if self._response is None or self._response.done():
            self._closed = True  # Bytes without a request.
            self._transport.abort()
            return
        try:
            response = self._reader.feed(self._buffer[:nbytes])
        except ProtocolError as error:
            self._fail(error)
            return
        if response is not None:
            self._response.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request in progress."""
        self._closed = True
        self._fail(lost(self._address, self._reader, exc))


class AsyncPool:
    """Keep-alive connections; at most `limit` are open at a time."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None, limit: int) -> None:
        self._address = address
        self._timeout = timeout
        self._context = tls_context(address, context)
        self._limit = limit
        self._open = True
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, data: bytes, limit: int = MAX_JSON) -> Response:
        """Send one request over an idle or a new connection and return its response."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # A connection belongs to one event loop; those of an earlier loop ended with it.
            self._loop = loop
            self._idle: list[AsyncConnection] = []
            self._slots = asyncio.Semaphore(self._limit)
        async with self._slots:
            while self._idle:
                connection = self._idle.pop()
                if connection.stale:
                    connection.close()
                    continue
                try:
                    return await self._send_over(connection, data, limit)
                except StaleConnection:
                    continue
            return await self._send_over(await self._connect(), data, limit)

    def close(self) -> None:
        """Close idle connections now, and those in use after their response."""
        self._open = False
        while self._loop is not None and self._idle:
            self._idle.pop().close()

    async def _send_over(self, connection: AsyncConnection, data: bytes, limit: int) -> Response:
        try:
            response = await connection.send(data, limit)
        except BaseException:
            connection.close()
            raise
        if connection.keep_alive and self._open:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    async def _connect(self) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        address = self._address

        def make() -> AsyncConnection:
            return AsyncConnection(address, self._timeout)

        if address.scheme == "unix":
            opening = loop.create_unix_connection(make, address.path)
        else:
            opening = loop.create_connection(make, address.host, address.port, ssl=self._context)
        try:
            _, connection = await asyncio.wait_for(opening, self._timeout)
        except (OSError, asyncio.TimeoutError) as error:
            raise not_connected(address, self._timeout, error) from error
        return connection
