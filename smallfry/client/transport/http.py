"""HTTP/1.1 responses, parsed by httptools (the parser of uvicorn).

Most responses of a connection have the same head, except for the values of a few fields that say nothing of
the framing. They are recognized by a regular expression, which is faster than parsing them.
"""

from __future__ import annotations

import re

import httptools

from smallfry.client.errors import ProtocolError
from smallfry.client.transport.messages import MAX_JSON, Response

MAX_HEAD = 1 << 16
"""Limit for the bytes of a response that are not body, in addition to as many as the body has.

These are the head, interim responses, and the framing, extensions and trailers of chunks.
"""

MAX_FIELDS = 100
"""Limit for the number of header fields of a response."""

_MAX_REPEATED = 1 << 11
"""Limit for the bytes of a head that is recognized when it is repeated."""

_VARYING = {
    b"content-length": rb": (\d{1,15})",
    b"date": rb": [ -~]*",
    b"server-timing": rb": [ -~]*",
    b"x-request-id": rb": [ -~]*",
}
"""Header fields whose values differ between responses that are otherwise the same."""


class ResponseReader:
    """Parser for the responses of one connection."""

    started: bool
    """Whether any byte of the response has arrived."""
    keep_alive: bool
    """Whether the connection can carry another request after a complete response."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._last_head = b""
        self._repeated: tuple[re.Pattern[bytes], dict[bytes, bytes]] | None = None
        self.reset()

    def reset(self, limit: int = MAX_JSON) -> None:
        """Prepare for the next response, whose body takes at most `limit` bytes."""
        self.started = self.keep_alive = False
        self._limit = limit

    def feed(self, data: bytes | memoryview) -> Response | None:
        """Parse bytes from the server; return the response once it is complete."""
        if not self.started and self._repeated is not None:
            pattern, headers = self._repeated
            match = pattern.match(data)
            if match is not None:
                body = data[match.end() :]
                if int(match[1]) == len(body) <= self._limit:
                    self.started = self.keep_alive = True
                    return Response(200, headers, bytearray(body))
        if not self.started:
            self._begin()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__ if isinstance(error.__context__, ProtocolError) else error
            raise ProtocolError(f"the server's response is not accepted: {cause}") from None
        if self._received > MAX_HEAD + 2 * len(self._body):
            raise ProtocolError(f"the head or the framing of the response exceeds {MAX_HEAD:,} bytes")
        if self._response is not None and self.keep_alive and self._received == len(data):
            self._remember(bytes(data[:_MAX_REPEATED]), self._response)
        return self._response

    def _begin(self) -> None:
        self.started = True
        self._response: Response | None = None
        self._headers: dict[bytes, bytes] = {}
        self._in_head = True
        self._received = 0
        # A bytearray, so that arrays over it are writable.
        self._body = bytearray()

    def _remember(self, start: bytes, response: Response) -> None:
        """Recognize the head of a response from its third time on."""
        head, end, _ = start.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or not end or b"content-length" not in response.headers:
            return
        head = rb"\r\n".join([*map(_pattern_of, head.split(b"\r\n")), rb"\r\n"])
        if head == self._last_head:
            fixed = {name: value for name, value in response.headers.items() if name not in _VARYING}
            self._repeated = re.compile(head), fixed
        self._last_head = head

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
        if len(self._headers) > MAX_FIELDS:
            raise ProtocolError(f"it has more than {MAX_FIELDS} header fields")
        self._in_head = self._parser.get_status_code() < 200

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._body += data
        if len(self._body) > self._limit:
            raise ProtocolError(f"its body exceeds {self._limit:,} bytes, more than was requested")

    def on_message_complete(self) -> None:
        """Build the response; drop an interim one."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        self._response = Response(status, self._headers, self._body)
        self.keep_alive = self._parser.should_keep_alive()


def _pattern_of(line: bytes) -> bytes:
    """Return a pattern for a line of a head that matches itself and, if its value may vary, other values."""
    name = line.partition(b":")[0]
    value = _VARYING.get(name.lower())
    return re.escape(line) if value is None else re.escape(name) + value
