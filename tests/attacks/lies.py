"""Responses of a server that lies: a right one, wrong in one field, in its framing or in its pace."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from smallfry.client.transport.messages import Response
from tests.helpers.scripted_server import ScriptedServer

Answer = bytes | Callable[[socket.socket], None]

ESCAPES = "\x1b]0;\x07\x1b[2J\r\n\u202e" * 30
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 7, 1.5, 1e308, 2**31, 2**63, 2**64, "", "1", "0", "x", "nan", "9" * 400),
    *(ESCAPES, [], [[]], [0], [0, 0], [1, 2**40], [0, 2**62], ["x", None], {}, {"x": 1}),
    json.loads("[" * 200 + "]" * 200),
)
"""What a field is replaced by."""

HEADER_VALUES = ("", "x", "-1", "0", "9" * 30, "\x1b[2J\xff", "a" * 5000, "bytes 0-0/1", "text/html", "gzip")
ADDED_HEADERS = (
    *("Content-Encoding: gzip", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked", "Content-Length: 1"),
    *("Location: http://127.0.0.1:9/", "Connection: close", "Upgrade: h2c\r\nConnection: upgrade"),
    *("Content-Type: text/html", "Content-Range: bytes 0-1/2", "X-Smallfry-Digest: x", "Trailer: x"),
    "\r\n".join(f"X-{i}: y" for i in range(200)),
)
STATUSES = (
    100,
    101,
    199,
    201,
    204,
    206,
    301,
    304,
    307,
    400,
    404,
    408,
    413,
    429,
    500,
    502,
    503,
    504,
    599,
    999,
)
DATES = (
    "-1",
    "9" * 5000,
    "1e9",
    "\xb2",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 99 Foo 9999999999",
    "x" * 200,
)


class Lie(NamedTuple):
    """A wrong answer, and the field that is wrong in it."""

    field: str
    answer: Answer


class Liar(ScriptedServer):
    """A server that gives each path one answer, any number of times."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while self._read(connection):
                target = self.requests.pop().split(b" ", 2)[1].decode()
                answer = self.answers[urlsplit(target).path]
                if callable(answer):
                    answer(connection)
                    return
                connection.sendall(answer)


def raw(response: Response, **changes: Any) -> bytes:
    """Return the bytes of a response, with some of its status, headers and body changed."""
    status, headers, body = ({**vars(response), **changes}[name] for name in ("status", "headers", "body"))
    headers = {**headers, b"content-length": b"%d" % len(body)} if "headers" not in changes else headers
    lines = [b"%s: %s\r\n" % field for field in headers.items()]
    return b"HTTP/1.1 %d Whatever\r\n%s\r\n%s" % (status, b"".join(lines), body)


def lies(response: Response) -> Iterator[Lie]:
    """Return answers that differ from a right one in one thing each."""
    yield from lies_in_headers(response)
    yield from lies_in_body(response)
    for status in STATUSES:
        yield Lie(f"status {status}", raw(response, status=status))
        yield Lie(f"status {status}, no body", raw(response, status=status, body=b""))
    error = {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}
    for path, document in changed(error):
        yield Lie(f"error {path}", raw(response, status=422, body=json.dumps(document).encode()))
    for body in (
        b"<script" * 9000,
        b"<" * 60000,
        b"[" * 60000,
        b'{"error":{"message":"%s"}}' % (b"x" * 60000),
    ):
        headers = {b"content-type": b"text/html", b"content-length": b"%d" % len(body)}
        yield Lie(f"page {body[:8]!r}", raw(response, status=404, body=body, headers=headers))
    for date in DATES:
        headers = {b"retry-after": date.encode("latin-1"), b"content-length": b"0"}
        yield Lie(f"retry-after {date[:20]}", raw(response, status=503, body=b"", headers=headers))


def lies_in_headers(response: Response) -> Iterator[Lie]:
    """Return answers with one header field changed, removed, repeated or added."""
    whole = raw(response)
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    for i, line in enumerate(lines):
        name = line.partition(b":")[0]
        for value in HEADER_VALUES:
            changed = [*lines[:i], b"%s: %s" % (name, value.encode("latin-1")), *lines[i + 1 :]]
            yield Lie(f"header {name.decode()}: {value[:20]}", b"\r\n".join([first, *changed, b"", body]))
        for kept in (lines[:i] + lines[i + 1 :], [*lines, line]):
            yield Lie(f"header {name.decode()} {len(kept)}", b"\r\n".join([first, *kept, b"", body]))
    for added in ADDED_HEADERS:
        yield Lie(f"header {added[:30]}", b"\r\n".join([first, *lines, added.encode(), b"", body]))


def lies_in_body(response: Response) -> Iterator[Lie]:
    """Return answers with a body that is cut, extended, damaged or wrong in one field."""
    body = bytes(response.body)
    for size in {0, 1, 7, 8, 9, len(body) // 2, len(body) - 1}:
        yield Lie(f"body of {size}", raw(response, body=body[:size]))
    for tail in (b"\0", b" ", b"{}", body):
        yield Lie("body extended", raw(response, body=body + tail))
        yield Lie("bytes follow", raw(response) + tail)
    for position in range(0, min(len(body), 600), 13):
        damaged = body[:position] + bytes([body[position] ^ 0x15]) + body[position + 1 :]
        yield Lie(f"data byte {position}", raw(response, body=damaged))
    if body.startswith(b"{"):
        for path, document in changed(json.loads(body)):
            yield Lie(f"body {path}", raw(response, body=json.dumps(document).encode()))
        return
    end = 8 + int.from_bytes(body[:8], "little")
    if end > len(body):
        return
    for length in (0, 1, end - 9, end - 7, len(body), 2**63, 2**64 - 1):
        yield Lie("body header", raw(response, body=length.to_bytes(8, "little") + body[8:]))
    for path, document in changed(json.loads(body[8:end])):
        header = json.dumps(document).encode()
        forged = len(header).to_bytes(8, "little") + header + body[end:]
        yield Lie(f"body {path}", raw(response, body=forged))


def changed(document: Any) -> Iterator[tuple[str, Any]]:
    """Return a JSON document with each field in turn removed, or replaced by each wrong value."""
    for path in _paths(document):
        for value in (*VALUES, ...):
            forged = copy.deepcopy(document)
            parent = forged
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            yield "/".join(map(str, path)), forged


def _paths(document: Any) -> Iterator[tuple[str | int, ...]]:
    """Return the paths of all values; of a list, those of the first and the last only."""
    if isinstance(document, dict):
        keys: list[str | int] = list(document)
    elif isinstance(document, list):
        keys = sorted({0, len(document) - 1} & {*range(len(document))})
    else:
        return
    for key in keys:
        yield (key,)
        yield from ((key, *path) for path in _paths(document[key]))


def endless(start: bytes, piece: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Return an answer that does not end."""

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(start)
            while True:
                connection.sendall(piece)
                time.sleep(pause)

    return send


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "slow head": endless(b"", b"H", 0.01),
    "slow field": endless(OK, b"a", 0.01),
    "slow body": endless(OK + b"Content-Length: 999999\r\n\r\n", b"{", 0.01),
    "slow chunks": endless(CHUNKED, b"1\r\na\r\n", 0.01),
    "silence": endless(OK + b"Content-Length: 9\r\n\r\n", b"", 0.01),
    "fields": endless(OK, b"a: b\r\n" * 1000),
    "one field": endless(OK + b"a: ", b"b" * 10000),
    "reason": endless(b"HTTP/1.1 200 ", b"b" * 10000),
    "interim": endless(b"", b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" * 100),
    "body without length": endless(OK + b"\r\n", b"[" * 10000),
    "body": endless(OK + b"Content-Length: 99999999999\r\n\r\n", b"[" * 10000),
    "chunks": endless(CHUNKED, b"2710\r\n" + b"[" * 10000 + b"\r\n"),
    "small chunks": endless(CHUNKED, b"1\r\n[\r\n" * 1000),
    "extension": endless(CHUNKED + b"1;", b"a" * 10000),
    "trailers": endless(CHUNKED + b"0\r\n", b"a: b\r\n" * 1000),
    "trailer": endless(CHUNKED + b"0\r\na: ", b"b" * 10000),
}
"""Answers that do not end, or not for hours."""
