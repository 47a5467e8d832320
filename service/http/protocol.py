"""HTTP on the wire: uvicorn's protocol, with answers in one write and refusals in the form of all others."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from time import monotonic
from typing import Any

import httptools
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.errors import Headers, HeadTooLarge, RequestError, ServiceError

CLOSE = (b"connection", b"close")

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

_CONTINUE = b"HTTP/1.1 100"
#: Pieces up to this many bytes are joined with the head before them; larger ones go to the kernel beside it.
_JOIN = 1 << 14
#: Most bytes of a request's line and headers, and of those between two pieces of a body or behind the last:
#: what a chunk may say beside its length, and trailers. Give or take what one read from the kernel brings.
MAX_HEAD = 1 << 16
#: Most requests that wait on one connection for the answers to those before them.
_MAX_PIPELINE = 128
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
        """Send a head with what follows it, and anything else at once.

        What is written after the connection broke is dropped: until the loop's next turn nobody is told.
        """
        if self.is_closing():
            return
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


def answer_whole(send: Send, status: int, headers: Headers, body: bytes) -> bool:
    """Answer a request at once; return False where nothing is sent and the answer has to go in messages.

    Two messages, each of them checked, cost a small answer more than its lookup.

    Parameters
    ----------
    send : callable
        What the server gave the application to send messages. Where something else was put around it, or the
        connection does not simply go on, the answer has to go in messages.
    status : int
        Of HTTP.
    headers : sequence of (bytes, bytes)
        In lower case, ``content-length`` among them, and none that could end a line.
    body : bytes
        All of it.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.response_started or cycle.disconnected:
        return False
    if cycle.flow.write_paused or not cycle.keep_alive or CLOSE in headers:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    cycle.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
    cycle.message_event.set()
    cycle.on_response()
    return True


def is_gone(send: Send) -> bool:
    """Say whether the client is known to have left: what is sent to it is dropped in silence.

    It is never known where something else was put around what the server gave the application.
    """
    cycle = getattr(send, "__self__", None)
    return type(cycle) is RequestResponseCycle and cycle.disconnected


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of uvicorn
        super().__init__(*arguments, **options)
        self._fruitless = 0
        self._moved = False
        self._received = b""
        self._resuming = False
        self._answers = 0
        self._progress = (0, 0)
        self._stalled_since = monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the cork on."""
        super().connection_made(transport)
        self._corked = Corked(transport)
        self.transport = self._corked  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; refuse a head, or trailers, that do not end."""
        self._received, self._moved = data, False
        super().data_received(data)
        self._received = b""
        if self._moved:
            self._fruitless = 0
            return
        self._fruitless += len(data)
        if self._fruitless > MAX_HEAD and not self.transport.is_closing():
            self.refuse(HeadTooLarge(f"the request's line and headers take more than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        """Begin a request, unless it is one that goes on."""
        if not self._resuming:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Keep the target."""
        if not self._resuming:
            super().on_url(url)

    def on_headers_complete(self) -> None:
        """Begin a request; raise, which ends the connection, where too many are begun already."""
        self._moved = True
        if not self._resuming:
            if len(self.pipeline) >= _MAX_PIPELINE:
                raise ValueError("too many requests wait on this connection")
            super().on_headers_complete()
        # Trailers go nowhere: a proxy that looked at the headers has not seen them.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body; that of a request for another protocol is still to come."""
        if not self.parser.should_upgrade():
            self._resuming = False
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on with HTTP/1.1, as a server does that does not speak the protocol that was asked for.

        Clients of HTTP/2 ask so without TLS, and send the body along. What uvicorn handles is the parser's
        note of where it stopped; another parser takes over there, told how long the body is.
        """
        error = sys.exc_info()[1]
        assert error is not None
        rest = self._received[error.args[0] :]
        framing = [b"%b: %b\r\n" % header for header in self.scope["headers"] if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        self._received = b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n", rest))
        super().data_received(self._received)

    def on_response_complete(self) -> None:
        """End the answer on the wire."""
        self._answers += 1
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
        self.refuse(RequestError(msg))

    def refuse(self, error: ServiceError) -> None:
        """Answer what is no request, and close; amid another answer, close alone."""
        if self.cycle is None or self.cycle.response_complete:
            body = error.body()
            reason = HTTPStatus(error.status).phrase
            head = (
                f"HTTP/1.1 {error.status} {reason}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self._corked.get_write_buffer_size()  # type: ignore[no-any-return]

    def abort(self) -> None:
        """End the connection without sending what is left."""
        self._corked.abort()

    def stalled(self) -> float:
        """Return for how many seconds the client has been awaited; called now and then.

        The client is awaited while it sends no head of a request, and while it takes nothing of an answer. A
        body that does not arrive is the request's own affair.
        """
        now, progress = monotonic(), (self._answers, self.unsent)
        answering = self.cycle is not None and not self.cycle.response_complete
        if progress != self._progress or (answering and not self.unsent):
            self._progress, self._stalled_since = progress, now
        return now - self._stalled_since
