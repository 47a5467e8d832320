"""HTTP on the wire: uvicorn's protocol, with answers in one write and refusals in the form of all others."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import RequestError

_CONTINUE = b"HTTP/1.1 100"
#: Pieces up to this many bytes are joined with the head before them; larger ones go to the kernel beside it.
_JOIN = 1 << 14
#: Seconds that an idle connection stays open when the server stops: its client may have just sent a request.
_LINGER = 0.2


class Corked:
    """A transport that holds an answer's head back until its body comes, to send both at once.

    A write of its own would cost a system call more and wake the client for a head without a body.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._expects_head = True
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        """Send a head with what follows it, and anything else at once."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) <= _JOIN:
                self._transport.write(b"".join((head, data)))
            else:
                self._transport.writelines((head, data))
        elif self._expects_head and isinstance(data, bytes) and not data.startswith(_CONTINUE):
            self._head = data
            self._expects_head = False
        else:
            self._transport.write(data)

    def end_answer(self) -> None:
        """Send a head that nothing follows; the next write is a head again."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
        self._expects_head = True

    def close(self) -> None:
        """Send what is held back, then close."""
        self.end_answer()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection."""

    _stalled_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the cork on."""
        super().connection_made(transport)
        self._corked = Corked(transport)
        self.transport = self._corked  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """End the answer on the wire."""
        self._corked.end_answer()
        super().on_response_complete()

    def shutdown(self) -> None:
        """End the connection after its request in flight; without one, after the time for one to arrive."""
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        else:
            self.loop.call_later(_LINGER, super().shutdown)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        body = RequestError(msg).body()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def close_if_stalled(self, timeout: float) -> None:
        """Close a connection on which the head of a request is awaited for too long; called now and then."""
        if self.scope is not None and "method" in self.scope:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = monotonic()
        elif monotonic() - self._stalled_since > timeout:
            self.transport.close()
