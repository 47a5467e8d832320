"""HTTP/1.1 responses, parsed by httptools (the parser of uvicorn)."""

from __future__ import annotations

import httptools

from smallfry.client.errors import ProtocolError
from smallfry.client.transport.messages import Response

MAX_HEAD = 1 << 16
"""Limit for the header fields of a response, and for chunk extensions and trailers, in bytes."""

MAX_BODY = 1 << 31
"""Limit for the body of a response, in bytes."""


class ResponseReader:
    """Parser for the responses of one connection."""

    started: bool
    """Whether any byte of the response has arrived."""
    keep_alive: bool
    """Whether the connection can carry another request after a complete response."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Prepare for the next response."""
        self.started = False
        self.keep_alive = False
        self._response: Response | None = None
        self._headers: dict[bytes, bytes] = {}
        self._in_head = True
        self._progressed = False
        self._bytes_without_progress = 0
        self._body: list[bytes] = []
        self._body_size = 0

    def feed(self, data: bytes | memoryview) -> Response | None:
        """Parse bytes from the server; return the response once it is complete."""
        self.started, self._progressed = True, False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__ if isinstance(error.__context__, ProtocolError) else error
            raise ProtocolError(f"the server's response is not HTTP/1.1: {cause}") from None
        self._bytes_without_progress = 0 if self._progressed else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > MAX_HEAD:
            raise ProtocolError(f"the response's header fields exceed {MAX_HEAD:,} bytes")
        return self._response

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        """Reject a second response."""
        if self._response is not None:
            raise ProtocolError("bytes follow the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; ignore trailers."""
        if self._in_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Begin the body, unless the response is an interim one."""
        self._in_head = self._parser.get_status_code() < 200
        self._progressed = not self._in_head

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._progressed = True
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            raise ProtocolError(f"its body exceeds {MAX_BODY:,} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Build the response; drop an interim one."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        # A bytearray, so that arrays over it are writable.
        self._response = Response(status, self._headers, bytearray().join(self._body))
        self.keep_alive = self._parser.should_keep_alive()
