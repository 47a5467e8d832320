"""Requests that repeat the head of an earlier one on their connection.

A client that keeps its connection usually sends the same head with each request, apart from the length of the
body and fields that identify the request. What follows from the head is the same then: route, authentication,
format. Such a request is served at once, from its body, if that needs no waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from service.http.response import Buffer

Write = Callable[[list[Buffer]], None]
#: Takes a body, the variable fields of its head by name, and a function that sends a 200 response, given its
#: header lines and body. Returns whether it has sent one; otherwise the request is served in the general way.
Serve = Callable[[bytes, Mapping[bytes, bytes], Write], bool]

#: Key in the scope of a function that takes a `Serve` for requests that repeat this one's head.
KEEP_HEAD = "smallfry.keep_head"

#: Fields whose values may differ between requests, and what these look like.
_VARIABLE = {
    b"content-length": re.compile(rb"[0-9]{1,8}"),
    b"x-request-id": re.compile(rb"[!-~]{1,128}"),
    b"traceparent": re.compile(rb"[0-9a-f-]{55}"),
}
_FIELD = re.compile(rb"\r\n(%b):[ \t]*([!-~]+)(?=[ \t]*\r\n)" % b"|".join(_VARIABLE), re.IGNORECASE)
#: Bytes of a head that are kept for each connection.
_MAX_HEAD = 2048


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
        begin = 0
        self._parts: list[tuple[bytes, bytes, re.Pattern[bytes]]] = []
        for field in _FIELD.finditer(request, 0, end):
            name = field[1].lower()
            if _VARIABLE[name].fullmatch(field[2]):
                self._parts.append((request[begin : field.start(2)], name, _VARIABLE[name]))
                begin = field.end(2)
        self._last = request[begin:end]
        self.serve = serve
        if end < 4 or self.match(request) is None:
            raise ValueError("the request has no complete head and body")

    def match(self, request: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
        """Return the body and the variable fields of a request that has this head; None for other data."""
        at, fields = 0, {}
        for before, name, pattern in self._parts:
            value = pattern.match(request, at + len(before)) if request.startswith(before, at) else None
            if value is None:
                return None
            fields[name] = value[0]
            at = value.end()
        if not request.startswith(self._last, at):
            return None
        body = request[at + len(self._last) :]
        is_whole = len(fields) == len(self._parts) and int(fields.get(b"content-length", -1)) == len(body)
        return (body, fields) if is_whole else None
