"""How answers go over the wire."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Server

Start = Callable[..., Server]

BODY = b'{"tokens":["the"]}'


@pytest.fixture(scope="module")
def server(files: dict[str, Path], start: Start) -> Server:
    return start("--embeddings", str(files["small"]), "--port", "0")


def exchange(server: Server, *requests: bytes) -> bytes:
    """Send all requests in one piece and read to the end of the connection."""
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    with socket.create_connection(address, 10) as connection:
        connection.sendall(b"".join(requests))
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def lookup(request_id: bytes, *, last: bool = False) -> bytes:
    close = b"connection: close\r\n" if last else b""
    length = b"%bcontent-length: %d" % (close, len(BODY))
    return b"POST /lookup HTTP/1.1\r\nhost: x\r\nx-request-id: %b\r\n%b\r\n\r\n%b" % (
        request_id,
        length,
        BODY,
    )


def test_a_client_that_ends_the_connection_is_told_that_it_ends(server: Server) -> None:
    answer = exchange(server, lookup(b"one", last=True))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer


def test_requests_sent_at_once_are_answered_in_their_order(server: Server) -> None:
    answer = exchange(server, lookup(b"one"), lookup(b"two"), lookup(b"three", last=True))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.index(b"id: one") < answer.index(b"id: two") < answer.index(b"id: three")


def test_answers_in_one_piece_and_in_messages_have_the_same_headers(server: Server) -> None:
    answers = exchange(server, lookup(b"x"), lookup(b"x", last=True))
    _, whole, in_messages = answers.split(b"HTTP/1.1 200 OK\r\n")
    assert names(whole) | {b"connection"} == names(in_messages)
    assert names(whole) >= {b"date", b"content-type", b"content-length", b"vary", b"x-smallfry-digest"}
    assert names(whole) >= {b"x-request-id", b"server-timing"}


def names(answer: bytes) -> set[bytes]:
    head, _, _ = answer.partition(b"\r\n\r\n")
    return {line.partition(b":")[0] for line in head.split(b"\r\n")}
