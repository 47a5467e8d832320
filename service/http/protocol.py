"""HTTP/1.1 on the wire: uvicorn's protocol, with limits on heads and pipelines, and JSON error bodies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import HeadTooLarge, RequestError, ServiceError, TooManyConnections
from service.http.limits import RETRY
from service.http.repeat import KEEP_HEAD, MAX_KEPT, RepeatedHead, Serve
from service.http.response import CLOSE, Buffer, error_response, header_lines

_VERSIONS = frozenset({"1.1", "1.0"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
#: Bytes that are received at once, and of request line plus headers, and of chunk extensions and trailers.
MAX_HEAD = 1 << 14
#: Chunks of a body among bytes that are received at once.
MAX_CHUNKS = 2048
#: Header fields of a request head, fields of its trailers, and of its query.
MAX_FIELDS = 100
#: Pipelined requests that may wait on one connection, and their header fields together.
MAX_PIPELINE, _MAX_PIPELINE_FIELDS = 16, 200
#: Seconds that an idle connection stays open at shutdown: a request may be on its way.
_LINGER = 0.2


class GuardedTransport:
    """A transport that drops writes after it is closed: uvloop raises until the loop's next iteration."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        """Send data, unless the connection is closed."""
        if not self.is_closing():
            self._write(data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the transport's attributes
        return getattr(self._transport, name)


class UnchunkedCycle(RequestResponseCycle):
    """A request of HTTP/1.0, which has no chunks: a body of unknown length ends with the connection."""

    _unknown_length = False

    async def send(self, message: Any) -> None:  # noqa: ANN401 - an ASGI message
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            if all(name != b"content-length" for name, _ in message["headers"]):
                self.chunked_encoding, self._unknown_length = False, True
        elif self._unknown_length:
            self.expected_content_length = len(message["body"])
        await super().send(message)


class Receiver(asyncio.BufferedProtocol):
    """Receives at most `MAX_HEAD` bytes at once for a protocol; uvloop would pass it 256 KB.

    All receivers share one buffer, which is parsed before the next one is filled.
    """

    _buffer = memoryview(bytearray(MAX_HEAD))

    def __init__(self, protocol: Protocol) -> None:
        self._data_received = protocol.data_received
        self.connection_made = protocol.connection_made  # type: ignore[method-assign, assignment]
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to fill."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse the received bytes."""
        self._data_received(self._buffer[:nbytes])


class Protocol(HttpToolsProtocol):
    """One connection.

    `rejected` is called with the client's address and the status of a response that the application does not
    see, and returns a request ID. Connections beyond `max_connections` get 503 and are closed.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        rejected: Callable[[tuple[str, int] | None, int], bytes],
        max_connections: int,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._rejected = rejected
        self._max_connections = max_connections
        self._bytes_without_progress = 0
        self._progressed = False
        self._chunks = 0
        self._received = memoryview(b"")
        self._resuming = False
        self._responses = 0
        #: The request before the one that was received last, or the one in progress if several are pipelined.
        self._responding: RequestResponseCycle | None = None
        self._progress = (0, 0)
        self._waiting_since = self._repeated_at = monotonic()
        #: Whether the parser has read whole requests only; a response may precede the end of its request.
        self._between_messages = True
        #: What has arrived first since the last response, until the next one is complete.
        self._beginning = b""
        self._repeated: RepeatedHead | None = None
        #: A request that repeats the head, without the end of its body, and when its beginning arrived.
        self._partial, self._partial_since = b"", 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Guard the transport; close an excess connection."""
        super().connection_made(transport)
        self.transport = GuardedTransport(transport)  # type: ignore[assignment]
        if len(self.connections) > self._max_connections:
            self.reject(
                TooManyConnections(
                    f"{self._max_connections} connections are open, and this worker takes no more; try again",
                    headers=RETRY,
                )
            )

    def data_received(self, data: memoryview) -> None:  # type: ignore[override]
        """Serve a request that repeats a head, or parse the data."""
        if self._between_messages and (self.cycle is None or self.cycle.response_complete):
            received, since = self._partial + data, self._partial_since if self._partial else monotonic()
            self._partial = b""
            if self._repeated is not None and self._serve_repeated(self._repeated, received):
                self._partial_since = since
                return
            self._beginning, data = received[:MAX_KEPT], memoryview(received)
        self._parse(data)

    def _parse(self, data: memoryview) -> None:
        """Parse data; reject an endless head or endless trailers."""
        self._received, self._progressed, self._chunks = data, False, 0
        super().data_received(data)  # type: ignore[arg-type]
        cycle = self.cycle
        if cycle is not None and cycle.more_body and cycle.body and not cycle.response_complete:
            # Until the application receives this part of the body.
            self.flow.pause_reading()
        self._bytes_without_progress = 0 if self._progressed else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > MAX_HEAD and not self.transport.is_closing():
            self.reject(HeadTooLarge(f"the request's line and headers take more than {MAX_HEAD} bytes"))

    def _serve_repeated(self, head: RepeatedHead, received: bytes) -> bool:
        """Serve a request at once, or wait for the end of its body; return False if it has to be parsed."""
        if self.flow.write_paused or self.transport.is_closing():
            return False
        found = head.match(received)
        if found is None:
            return False
        body, missing, fields = found
        if missing:
            if len(received) + missing > MAX_HEAD:
                return False
            self._partial = received
            return True
        if not head.serve(body, fields, self._write_response):
            self._repeated = None  # until a request is served that need not wait
            return False
        self.server_state.total_requests += 1
        self._responses += 1
        self._repeated_at = monotonic()
        return True

    def parse_partial(self, seconds: float = 0.0) -> None:
        """Parse the request that waits for the end of its body, if it has waited some seconds or more."""
        if self._partial and monotonic() - self._partial_since >= seconds:
            data, self._partial = memoryview(self._partial), b""
            self._parse(data)

    def _write_response(self, chunks: list[Buffer]) -> None:
        """Send a 200 response: the rest of its header lines, and its body."""
        date = header_lines(self.server_state.default_headers)
        self.transport.write(b"".join((STATUS_LINE[200], date, *chunks)))

    def _keep_head(self, serve: Serve) -> None:
        """Keep the head of the request in progress, and how to serve requests that repeat it."""
        if self.cycle.keep_alive and not self.pipeline:
            try:
                self._repeated = RepeatedHead(self._beginning, serve)
            except ValueError:
                self._repeated = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; a request that repeats a head does not restart the timer."""
        left = self._repeated_at + self.timeout_keep_alive - monotonic()
        if self._partial:
            self.parse_partial()
        elif left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """Begin a request, unless one is resumed."""
        self._between_messages = False
        if not self._resuming:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Set the target, unless a request is resumed."""
        if not self._resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field of the head or of trailers; raise at once if there are too many."""
        if len(self.headers) >= MAX_FIELDS:
            raise HeadTooLarge(f"the request has more than {MAX_FIELDS} header fields, or fields of trailers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request; raise, which closes the connection, if too many are pipelined."""
        self._progressed = True
        if not self._resuming:
            if self.pipeline:
                self._check_pipeline()
            else:
                self._responding = self.cycle
            self._check_head()
            self.scope[KEEP_HEAD] = self._keep_head  # type: ignore[literal-required]
            super().on_headers_complete()
            if self.scope["http_version"] == "1.0":
                self.cycle.__class__ = UnchunkedCycle
        # Trailers are dropped: a proxy that checks headers does not see them.
        self.headers = []

    def _check_pipeline(self) -> None:
        """Raise `RequestError` if too many requests, or too many header fields of them, wait."""
        fields = sum(1 for cycle, _ in self.pipeline for _ in cycle.scope["headers"])
        if len(self.pipeline) >= MAX_PIPELINE or fields + len(self.headers) > _MAX_PIPELINE_FIELDS:
            raise RequestError(
                f"more than {MAX_PIPELINE} requests, or {_MAX_PIPELINE_FIELDS} header fields of them, wait "
                "on this connection; read the responses first"
            )

    def _check_head(self) -> None:
        """Raise an error for too many fields of the query, and those of RFC 9112 that the parser misses."""
        version, names = self.parser.get_http_version(), [name for name, _ in self.headers]
        if version not in _VERSIONS:
            raise RequestError(f"the version is HTTP/{version}; this server takes HTTP/1.1 and HTTP/1.0")
        if self.url.count(b"&") >= MAX_FIELDS:
            raise HeadTooLarge(f"the query has more than {MAX_FIELDS} fields", param="query")
        hosts = names.count(b"host")
        if hosts > 1 or (not hosts and version == "1.1"):
            raise RequestError(f"the request has {hosts} Host headers; it has to have one")
        if b"transfer-encoding" in names:
            coding = dict(self.headers)[b"transfer-encoding"]
            if coding.lower() != b"chunked":
                raise RequestError(
                    f"Transfer-Encoding is {coding.decode('latin-1')!r}; it has to be 'chunked'"
                )

    def on_body(self, body: bytes) -> None:
        """Pass on a chunk of the body; raise if chunks are so small that they take long."""
        self._progressed = True
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise RequestError(f"{MAX_HEAD} bytes hold more than {MAX_CHUNKS} chunks; send larger ones")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body; that of an upgrade request is yet to be parsed."""
        if not self.parser.should_upgrade():
            self._resuming, self._between_messages = False, True
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the upgrade and continue with HTTP/1.1; uvicorn would take the body for a second request.

        HTTP/2 clients without TLS request an upgrade and send the body along. The parser stops after the
        head, at the offset in its exception; a new parser, which knows the body's length, continues there.
        """
        error = sys.exc_info()[1]
        assert error is not None
        rest = self._received[error.args[0] :]
        framing = [b"%b: %b\r\n" % header for header in self.scope["headers"] if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        self._received = memoryview(b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n", rest)))
        super().data_received(self._received)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Count the response, as progress of the connection."""
        self._responses += 1
        self._beginning = b""
        if self.pipeline:
            self._responding = self.pipeline[-1][0]
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in progress; uvicorn tells the one that was received last."""
        self.parse_partial()
        if self._responding is not None:
            self._responding.disconnected = True
            self._responding.message_event.set()
        self._repeated = None  # It refers to the scope of a request, which refers to this connection.
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection after the request in progress, or after the time for one to arrive."""
        self._repeated = None
        self.parse_partial()
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        else:
            self.loop.call_later(_LINGER, super().shutdown)

    def send_400_response(self, msg: str) -> None:
        """Reject a request that is not HTTP, or that a callback of the parser has rejected."""
        error = sys.exc_info()[1]
        reason = error and error.__context__
        self.reject(reason if isinstance(reason, ServiceError) else RequestError(msg))

    def reject(self, error: ServiceError) -> None:
        """Send an error and close; close only, if another response is due first or has begun."""
        cycle = self.cycle
        in_body = cycle is not None and cycle.more_body and not (cycle.response_started or self.pipeline)
        if cycle is None or cycle.response_complete or in_body:
            response = error_response(error)
            request_id = (b"x-request-id", self._rejected(self.client, error.status))
            lines = header_lines((*response.raw_headers, request_id, CLOSE))
            self.transport.write(b"".join((STATUS_LINE[error.status], lines, b"\r\n", *response.chunks)))
        self.transport.close()

    @property
    def unsent(self) -> int:
        """Bytes of responses that the client has not received."""
        return self.transport.get_write_buffer_size()

    @property
    def held(self) -> int:
        """Bytes of unsent responses and of an unfinished head."""
        return self.unsent + self._bytes_without_progress

    def abort(self) -> None:
        """Close the connection without sending buffered data."""
        self.transport.abort()

    def stalled(self) -> float:
        """Return how long the connection has waited for the client, in seconds.

        It waits while the client sends no request head, and while it receives nothing of a response. The
        request itself limits the time of its body, and uvicorn's timer the time between requests.
        """
        now, progress = monotonic(), (self._responses, self.unsent)
        responding = self.cycle is not None and not self.cycle.response_complete
        between_requests = self.timeout_keep_alive_task is not None
        if progress != self._progress or ((responding or between_requests) and not self.unsent):
            self._progress, self._waiting_since = progress, now
        return now - self._waiting_since
