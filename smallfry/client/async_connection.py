"""Connections of the asynchronous client, over asyncio."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from smallfry.client.address import Address
from smallfry.client.connection import StaleConnection, tls_context
from smallfry.client.errors import ConnectFailed, ConnectionLost, ProtocolError, Timeout, TransportError
from smallfry.client.http import ResponseReader
from smallfry.client.messages import Response


class AsyncConnection(asyncio.Protocol):
    """One connection to the server, with one request on it at a time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._reader = ResponseReader()
        self._closed = False
        self._waiting: asyncio.Future[Response] | None = None

    async def ask(self, data: bytes) -> Response:
        """Send one request and wait for its answer; raises as the synchronous connection does."""
        if self._closed:
            raise StaleConnection("the server closed the connection while it was idle")
        self._reader.expect()
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(self._timeout, self._expire)
        try:
            self._transport.write(data)
            return await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow the answer that came last."""
        return self._reader.keep_alive and not self._closed

    def close(self) -> None:
        """Close the socket."""
        self._transport.abort()

    def _expire(self) -> None:
        self._fail(Timeout(f"no whole answer came within {self._timeout:g} s"))

    def _fail(self, error: TransportError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    # What asyncio calls, by name.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the answer."""
        if self._waiting is None:
            self._closed = True  # bytes that nobody asked for
            return
        try:
            answer = self._reader.feed(data)
        except ProtocolError as error:
            self._fail(error)
            return
        if answer is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._closed = True
        kind = ConnectionLost if self._reader.started else StaleConnection
        reason = exc or "the server closed it"
        self._fail(kind(f"the connection was lost before the answer was complete: {reason}"))


class AsyncPool:
    """Connections that wait for their next request; at most `limit` are open at a time."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None, limit: int) -> None:
        self._address = address
        self._timeout = timeout
        self._context = tls_context(address, context)
        self._limit = limit
        self._open = True
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, data: bytes) -> Response:
        """Send one request over an idle connection, or a new one, and wait for its answer."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Connections live in one event loop; those of an earlier one have ended with it.
            self._loop = loop
            self._idle: list[AsyncConnection] = []
            self._slots = asyncio.Semaphore(self._limit)
        async with self._slots:
            while self._idle:
                try:
                    return await self._ask_over(self._idle.pop(), data)
                except StaleConnection:
                    continue
            return await self._ask_over(await self._connect(), data)

    def close(self) -> None:
        """Close the idle connections, and those in use when their answer has come."""
        self._open = False
        while self._loop is not None and self._idle:
            self._idle.pop().close()

    async def _ask_over(self, connection: AsyncConnection, data: bytes) -> Response:
        try:
            answer = await connection.ask(data)
        except BaseException:
            connection.close()
            raise
        if connection.keep_alive and self._open:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connect(self) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        address = self._address

        def make() -> AsyncConnection:
            return AsyncConnection(self._timeout)

        if address.scheme == "unix":
            opening = loop.create_unix_connection(make, address.path)
        else:
            opening = loop.create_connection(make, address.host, address.port, ssl=self._context)
        try:
            _, connection = await asyncio.wait_for(opening, self._timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise Timeout(f"cannot connect to {address} within {self._timeout:g} s") from None
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {address}: {error}") from error
        return connection
