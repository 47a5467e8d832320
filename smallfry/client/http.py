"""The answers on a connection, parsed by httptools: the parser of uvicorn and Node.js."""

from __future__ import annotations

import httptools

from smallfry.client.errors import ProtocolError
from smallfry.client.messages import Response

MAX_HEAD = 1 << 16
"""Most bytes of header fields that an answer may have, and of trailers or the like that bring no body."""

MAX_BODY = 1 << 31
"""Most bytes of body that an answer may have."""


class ResponseReader:
    """Parses the answers of one connection, one after another.

    Attributes
    ----------
    started : bool
        Whether a byte of the answer has come.
    keep_alive : bool
        Whether the connection can carry another request, once an answer is complete.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Response | None = None
        self.expect()

    def expect(self) -> None:
        """Make ready for the next answer."""
        self.started = False
        self.keep_alive = False
        self._answer = None
        self._headers: dict[bytes, bytes] = {}
        self._in_head = True
        self._moved = False
        self._fruitless = 0
        self._body: list[bytes] = []
        self._body_size = 0

    def feed(self, data: bytes | memoryview) -> Response | None:
        """Take bytes from the server; return the answer once it is complete.

        Raises
        ------
        ProtocolError
            When the bytes are no HTTP/1.1 answer, or more than one.
        """
        self.started, self._moved = True, False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__ if isinstance(error.__context__, ProtocolError) else error
            raise ProtocolError(f"the server's answer is not HTTP/1.1: {cause}") from None
        self._fruitless = 0 if self._moved else self._fruitless + len(data)
        if self._fruitless > MAX_HEAD:
            raise ProtocolError(f"the answer's header fields take more than {MAX_HEAD:,} bytes")
        return self._answer

    # What httptools calls, by name.

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self._answer is not None:
            raise ProtocolError("more bytes came than one answer has")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; trailers, which stand behind the body, change nothing."""
        if self._in_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note that the body begins, unless the answer is an interim one."""
        self._in_head = self._parser.get_status_code() < 200
        self._moved = not self._in_head

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._moved = True
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            raise ProtocolError(f"its body takes more than {MAX_BODY:,} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Make the answer."""
        status = self._parser.get_status_code()
        if status < 200:  # the real one follows
            self._headers = {}
            return
        # A bytearray, so that arrays over it can be written to.
        self._answer = Response(status, self._headers, bytearray().join(self._body))
        self.keep_alive = self._parser.should_keep_alive()
