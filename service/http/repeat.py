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
    b"tracestate": re.compile(rb"[!-~]{1,512}"),
    b"baggage": re.compile(rb"[!-~]{1,512}"),
}
_NAME = re.compile(rb"\r\n(%b):" % b"|".join(_VARIABLE), re.IGNORECASE)
_FIELD = re.compile(_NAME.pattern + rb"[ \t]*([!-~]+)(?=\r\n)", re.IGNORECASE)
#: A head whose body is sent only after an interim response.
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
#: Bytes of a head that are kept for each connection.
MAX_KEPT = 2048


class RepeatedHead:
    """A head, and how to serve the bodies that follow it.

    Parameters
    ----------
    data : bytes
        The beginning of a valid request.
    serve : Serve

    Raises
    ------
    ValueError
        The head is longer than `MAX_KEPT`, declares no length, or delays the body.
    """

    def __init__(self, data: bytes, serve: Serve) -> None:
        end = data.find(b"\r\n\r\n", 0, MAX_KEPT) + 4
        begin = 0
        self._parts: list[tuple[bytes, bytes, re.Pattern[bytes]]] = []
        for field in _FIELD.finditer(data, 0, end):
            name = field[1].lower()
            if _VARIABLE[name].fullmatch(field[2]):
                self._parts.append((data[begin : field.start(2)], name, _VARIABLE[name]))
                begin = field.end(2)
        has_length = b"content-length" in [name for _, name, _ in self._parts]
        names = [name[1].lower() for name in _NAME.finditer(data, 0, end)]
        if not has_length or len(names) > len({*names}) or _EXPECT.search(data, 0, end):
            raise ValueError("the head is not followed by a body of known length")
        self._last = data[begin:end]
        self.serve = serve

    def match(self, data: bytes) -> tuple[bytes, int, dict[bytes, bytes]] | None:
        """Return the body, the number of bytes that it lacks, and the variable fields; None for another head.

        None also if more than one request has arrived.
        """
        at, fields = 0, {}
        for before, name, pattern in self._parts:
            value = pattern.match(data, at + len(before)) if data.startswith(before, at) else None
            if value is None:
                return None
            fields[name] = value[0]
            at = value.end()
        if not data.startswith(self._last, at):
            return None
        body = data[at + len(self._last) :]
        missing = int(fields[b"content-length"]) - len(body)
        return (body, missing, fields) if missing >= 0 else None
