"""Connections of the synchronous client."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import time

from smallfry.client.errors import ConnectFailed, ConnectionLost, Timeout, TransportError
from smallfry.client.transport.address import Address
from smallfry.client.transport.http import ResponseReader
from smallfry.client.transport.messages import MAX_JSON, Response
from smallfry.client.transport.tls import tls_context, tls_error

RECEIVE_BYTES = 1 << 17


class StaleConnection(ConnectionLost):
    """The connection ended before the first byte of the response."""


class Connection:
    """A connection that carries one request at a time."""

    keep_alive: bool
    """Whether another request may follow the last response."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._timeout = self._patience = timeout
        self._reader = ResponseReader()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        try:
            self._socket = _connect(address, timeout, context)
        except OSError as error:
            raise not_connected(address, timeout, error) from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def send(self, data: bytes, limit: int) -> Response:
        """Send one request and return its response, or raise a `TransportError`.

        The body of the response takes at most `limit` bytes.
        """
        reader = self._reader
        reader.reset(limit)
        started = time.monotonic()
        deadline = started + self._timeout
        sent = True
        try:
            try:
                if self._patience != self._timeout:
                    self._set_timeout(self._timeout)
                count = self._socket.send(data)
                while count < len(data):
                    self._wait_until(deadline)
                    count += self._socket.send(memoryview(data)[count:])
            except (BrokenPipeError, ConnectionResetError):
                sent = False  # A server that rejects a request early may have sent the reason.
            # Otherwise the timeout of the socket is still right to a tenth; see _wait_until.
            if time.monotonic() - started > self._timeout / 10:
                self._wait_until(deadline)
            while (count := self._socket.recv_into(self._buffer)) > 0:
                response = reader.feed(self._buffer[:count])
                if response is not None:
                    self.keep_alive = sent and reader.keep_alive
                    return response
                self._wait_until(deadline)
        except TimeoutError:
            raise incomplete(self._address, self._timeout) from None
        except OSError as error:
            raise lost(self._address, reader, error) from error
        raise lost(self._address, reader)

    @property
    def stale(self) -> bool:
        """Whether the server has closed the idle connection or sent bytes on it."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _wait_until(self, deadline: float) -> None:
        """Let the next call of the socket end at a time, to a tenth; raise TimeoutError if it is past."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._patience - left > self._timeout / 10:
            self._set_timeout(left)

    def _set_timeout(self, seconds: float) -> None:
        self._patience = seconds
        self._socket.settimeout(seconds)


class Pool:
    """Keep-alive connections shared by threads; a forked child starts with none."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None, limit: int) -> None:
        self._address = address
        self._timeout = timeout
        self._context = tls_context(address, context)
        self._limit = limit
        self._idle: list[Connection] = []
        self._process = os.getpid()

    def send(self, data: bytes, limit: int = MAX_JSON) -> Response:
        """Send one request over an idle or a new connection and return its response.

        Requests are idempotent, so one that finds its idle connection closed is sent again.
        """
        while True:
            idle = self._take()
            connection = idle or Connection(self._address, self._timeout, self._context)
            try:
                response = connection.send(data, limit)
            except BaseException as error:
                connection.close()
                if isinstance(error, StaleConnection) and idle is not None:
                    continue
                raise
            if connection.keep_alive and len(self._idle) < self._limit:
                self._idle.append(connection)
            else:
                connection.close()
            return response

    def close(self) -> None:
        """Close idle connections now, and those in use after their response."""
        self._limit = 0
        while (connection := self._take()) is not None:
            connection.close()

    def _take(self) -> Connection | None:
        """Return an idle connection that is open; None if there is none."""
        if self._process != os.getpid():
            # These sockets belong to the parent. Closing them here leaves them open there.
            self._idle = []
            self._process = os.getpid()
        try:
            while (connection := self._idle.pop()).stale:
                connection.close()
            return connection
        except IndexError:
            return None


def not_connected(address: Address, timeout: float, reason: Exception) -> TransportError:
    """Return the error for a connection that could not be opened."""
    if isinstance(reason, (TimeoutError, asyncio.TimeoutError)):
        return Timeout(f"cannot connect to {address} within {timeout:g} s")
    return tls_error(address, reason) or ConnectFailed(
        f"cannot connect to {address}: {reason}. Is the server running?"
    )


def incomplete(address: Address, timeout: float) -> Timeout:
    """Return the error for a response that is not complete in time."""
    return Timeout(f"no complete response from {address} within {timeout:g} s")


def lost(address: Address, reader: ResponseReader, reason: Exception | None = None) -> TransportError:
    """Return the error for a connection that ended before its response was complete."""
    kind = ConnectionLost if reader.started else StaleConnection
    hint = "" if reader.started or address.scheme != "http" else ". Does the port require https://?"
    return tls_error(address, reason) or kind(
        f"the connection to {address} was lost before the response was complete: "
        f"{reason or 'the server closed it'}{hint}"
    )


def _connect(address: Address, timeout: float, context: ssl.SSLContext | None) -> socket.socket:
    if address.scheme == "unix":
        connected = socket.socket(socket.AF_UNIX)
    else:
        connected = socket.create_connection((address.host, address.port), timeout)
    try:
        if address.scheme == "unix":
            connected.settimeout(timeout)
            connected.connect(address.path)
        else:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected if context is None else context.wrap_socket(connected, server_hostname=address.host)
    except BaseException:
        connected.close()
        raise
