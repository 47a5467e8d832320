"""Requests that repeat the head of an earlier one on their connection.

A client that keeps its connection usually sends the same head with each request, apart from the digits of
``Content-Length``. What follows from the head is the same then: route, authentication, format. Such a request
is served at once, from its body, if that needs no waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from service.http.response import Buffer

#: Returns the header lines and the body of a 200 response, without the status line; or None if the request
#: has to be served in the general way.
Serve = Callable[[bytes], list[Buffer] | None]

#: Key in the scope of a function that takes a `Serve` for requests that repeat this one's head.
KEEP_HEAD = "smallfry.keep_head"

#: Bytes of a head that are kept for each connection.
_MAX_HEAD = 2048
_MAX_DIGITS = 8
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)


class RepeatedHead:
    """A head, and how to serve the bodies that follow it.

    Parameters
    ----------
    request : bytes
        A valid request: a head with ``Content-Length``, and the body.
    serve : Serve

    Raises
    ------
    ValueError
        It is not that, or the head is too long to be kept.
    """

    def __init__(self, request: bytes, serve: Serve) -> None:
        end = request.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
        length = _CONTENT_LENGTH.search(request, 0, end)
        if end < 4 or length is None or int(length[1]) != len(request) - end:
            raise ValueError("the request has no complete head and body")
        self._before, self._after = request[: length.start(1)], request[length.end(1) : end]
        self.serve = serve

    def body(self, request: bytes) -> bytes | None:
        """Return the body of a request that has this head, and None for any other data."""
        if not request.startswith(self._before):
            return None
        begin = len(self._before)
        end = request.find(b"\r", begin, begin + _MAX_DIGITS + 1)
        digits = request[begin:end]
        if end < 0 or not digits.isdigit() or not request.startswith(self._after, end):
            return None
        body = request[end + len(self._after) :]
        return body if int(digits) == len(body) else None
