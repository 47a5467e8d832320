"""Repeated heads are recognized, and mean what they mean to the parser."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from smallfry.client.errors import ProtocolError
from smallfry.client.transport.http import ResponseReader

LIMIT = 40
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 13:06:53 GMT\r\ncontent-type: text/plain\r\n"
    b"content-length: %d\r\nX-Request-ID: %s\r\nserver-timing: total;dur=0.1\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def message(body: bytes, request_id: bytes = b"1") -> bytes:
    return HEAD % (len(body), request_id) + body


def warmed() -> ResponseReader:
    reader = ResponseReader()
    for i in range(3):
        assert read(reader, message(b"abc", b"%d" % i)) == (200, b"abc", b"text/plain", True)
    return reader


def read(reader, *pieces):
    """Return what a reader makes of the pieces of a response, or the error."""
    reader.reset(LIMIT)
    response = None
    for piece in pieces:
        try:
            response = reader.feed(memoryview(piece))
        except ProtocolError as error:
            return str(error)
    if response is None:
        return reader.keep_alive
    return response.status, bytes(response.body), response.headers.get(b"content-type"), reader.keep_alive


def test_a_repeated_head_is_not_parsed_again(monkeypatch):
    reader = warmed()
    monkeypatch.setattr(reader, "_parser", None)
    assert read(reader, message(b"", b"a-b")) == (200, b"", b"text/plain", True)
    assert read(reader, message(b"0123456789", b"")) == (200, b"0123456789", b"text/plain", True)


def test_the_body_of_a_repeated_head_is_writable():
    reader = warmed()
    reader.reset()
    response = reader.feed(message(b"abc"))
    response.body[0] = 0


@given(st.data())
@example(None)
def test_a_response_means_the_same_after_others_of_its_head(data):
    whole = bytearray(message(b"0123456789", b"xyz"))
    if data is not None:
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(whole) - 1))
            whole[at : at + data.draw(st.integers(0, 2))] = data.draw(
                st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\0", b"\x80", b" ", b"0", b"9", b":", b"a"])
            )
    cut = len(whole) if data is None else data.draw(st.integers(1, len(whole)))
    pieces = [bytes(piece) for piece in (whole[:cut], whole[cut:]) if piece]
    assert read(warmed(), *pieces) == read(ResponseReader(), *pieces)


@pytest.mark.parametrize(
    "other",
    [
        message(b"x" * (LIMIT + 1)),
        message(b"abc") + b"d",
        message(b"abc") + message(b"abc"),
        message(b"abc")[:-1],
        CONTINUE + message(b"abc"),
        message(b"abc").replace(b"content-length: 3", b"content-length: 3\r\ncontent-length: 3"),
        message(b"abc").replace(b"content-length: 3", b"transfer-encoding: chunked\r\ncontent-length: 3"),
        message(b"abc").replace(b"text/plain", b"text/html"),
        message(b"abc").replace(b"content-type", b"connection: close\r\ncontent-type"),
        message(b"abc").replace(b"200 OK", b"503 OK"),
    ],
)
def test_other_responses_are_parsed(other):
    expected = read(ResponseReader(), other)
    reader = warmed()
    assert read(reader, other) == expected
    if not isinstance(expected, str) and expected is not False:
        assert read(reader, message(b"abc")) == (200, b"abc", b"text/plain", True)


@pytest.mark.parametrize("head", [CONTINUE, b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n"])
def test_interim_heads_are_not_remembered(head):
    reader = ResponseReader()
    for _ in range(4):
        assert read(reader, head + message(b"abc")) == (200, b"abc", b"text/plain", True)
