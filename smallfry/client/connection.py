"""Connections of the synchronous client."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time

from smallfry.client.address import Address
from smallfry.client.errors import ConnectFailed, ConnectionLost, Timeout
from smallfry.client.http import ResponseReader
from smallfry.client.messages import Response

RECEIVE = 1 << 17


class StaleConnection(ConnectionLost):
    """The connection ended without a byte of the answer."""


class Connection:
    """One connection to the server, with one request on it at a time.

    Attributes
    ----------
    keep_alive : bool
        Whether another request may follow the answer that came last.
    """

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        self._timeout = timeout
        self._reader = ResponseReader()
        self._buffer = memoryview(bytearray(RECEIVE))
        try:
            self._socket = _connect(address, timeout, context)
        except (TimeoutError, OSError) as error:
            kind = Timeout if isinstance(error, TimeoutError) else ConnectFailed
            raise kind(f"cannot connect to {address}: {error}") from error
        self._arrivals = select.poll()
        self._arrivals.register(self._socket, select.POLLIN)

    def ask(self, data: bytes) -> Response:
        """Send one request and wait for its answer.

        Raises
        ------
        StaleConnection
            When the connection ended without a byte of an answer.
        ConnectionLost, Timeout, ProtocolError
            When no whole answer came.
        """
        reader = self._reader
        reader.expect()
        deadline = time.monotonic() + self._timeout
        whole = True
        try:
            try:
                self._socket.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                whole = False  # a server that refuses a request early may have said why
            while (count := self._socket.recv_into(self._buffer)) > 0:
                answer = reader.feed(self._buffer[:count])
                if answer is not None:
                    self.keep_alive = whole and reader.keep_alive
                    return answer
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise Timeout(f"no whole answer came within {self._timeout:g} s") from None
        except OSError as error:
            raise self._lost(str(error)) from error
        raise self._lost("the server closed it")

    @property
    def stale(self) -> bool:
        """Whether the server has closed the connection, or sent what nobody asked for."""
        return bool(self._arrivals.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _lost(self, reason: str) -> ConnectionLost:
        kind = ConnectionLost if self._reader.started else StaleConnection
        return kind(f"the connection was lost before the answer was complete: {reason}")


class Pool:
    """Connections that wait for their next request, shared by threads; a forked child starts with none."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None, limit: int) -> None:
        self._address = address
        self._timeout = timeout
        self._context = tls_context(address, context)
        self._limit = limit
        self._idle: list[Connection] = []
        self._process = os.getpid()

    def ask(self, data: bytes) -> Response:
        """Send one request over an idle connection, or a new one, and wait for its answer.

        A connection that the server has closed while it was idle is replaced: no request of this client
        changes anything on the server, so that it may be sent again.
        """
        while (connection := self._take()) is not None:
            if connection.stale:
                connection.close()
                continue
            try:
                return self._ask_over(connection, data)
            except StaleConnection:
                continue
        return self._ask_over(Connection(self._address, self._timeout, self._context), data)

    def close(self) -> None:
        """Close the idle connections, and those in use when their answer has come."""
        self._limit = 0
        while (connection := self._take()) is not None:
            connection.close()

    def _take(self) -> Connection | None:
        if self._process != os.getpid():
            # The parent's sockets are not ours to use; that they close here does not end them there.
            self._idle = []
            self._process = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _ask_over(self, connection: Connection, data: bytes) -> Response:
        try:
            answer = connection.ask(data)
        except BaseException:
            connection.close()
            raise
        if connection.keep_alive and len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


def tls_context(address: Address, given: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return what an https address needs, and None for the others."""
    if address.scheme != "https":
        return None
    return given or ssl.create_default_context()


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
