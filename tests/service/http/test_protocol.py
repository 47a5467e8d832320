"""HTTP/1.1 on the wire: pipelining, upgrades, chunked bodies, disconnects."""

import json
import socket
import struct

import pytest

from tests.helpers.servers import eventually, write_sfq

BODY = b'{"tokens":["the"]}'


@pytest.fixture(scope="module")
def server(files, start):
    return start(files["small"])


def exchange(server, *requests):
    """Send all requests at once and read until the connection closes."""
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    with socket.create_connection(address, 10) as connection:
        connection.sendall(b"".join(requests))
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def lookup(request_id, *, last=False):
    close = b"connection: close\r\n" if last else b""
    length = b"%bcontent-length: %d" % (close, len(BODY))
    return b"POST /lookup HTTP/1.1\r\nhost: x\r\nx-request-id: %b\r\n%b\r\n\r\n%b" % (
        request_id,
        length,
        BODY,
    )


def test_connection_close_is_confirmed(server):
    response = exchange(server, lookup(b"one", last=True))
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in response


def test_pipelined_requests_are_answered_in_order(server):
    response = exchange(server, lookup(b"one"), lookup(b"two"), lookup(b"three", last=True))
    assert response.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert response.index(b"id: one") < response.index(b"id: two") < response.index(b"id: three")


def test_whole_and_streamed_responses_have_the_same_headers(server):
    responses = exchange(server, lookup(b"x"), lookup(b"x", last=True))
    _, whole, in_messages = responses.split(b"HTTP/1.1 200 OK\r\n")
    assert names(whole) | {b"connection"} == names(in_messages)
    assert names(whole) >= {b"date", b"content-type", b"content-length", b"vary", b"x-smallfry-digest"}
    assert names(whole) >= {b"x-request-id", b"server-timing"}


UPGRADES = (
    b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n",
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n",
)


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrade_requests_are_served_over_http_1_1(server, upgrade):
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\n" + upgrade
    whole = head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    without = b"GET /livez HTTP/1.1\r\nhost: x\r\n" + upgrade + b"\r\n"
    response = exchange(server, whole, without, chunked, whole, lookup(b"x", last=True))
    assert response.count(b"HTTP/1.1 200 OK\r\n") == 5
    assert response.count(b'"found":[true]') == 4


def test_body_of_an_upgrade_request_may_arrive_later(server):
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    with socket.create_connection(address, 10) as connection:
        head = b"POST /lookup HTTP/1.1\r\nhost: x\r\n" + UPGRADES[0]
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(BODY))
        for byte in BODY:
            connection.sendall(bytes([byte]))
        assert connection.recv(1 << 16).endswith(b'"found":[true]}')


def chunked(after):
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(BODY), BODY, after)


def test_trailers_are_not_headers(start, files):
    locked = start(files["small"], SMALLFRY_API_KEYS="the-key")
    last = lookup(b"x\r\nx-api-key: the-key", last=True)
    response = exchange(locked, chunked(b"x-api-key: the-key\r\n"), last)
    assert response.startswith(b"HTTP/1.1 401 ") and response.count(b"HTTP/1.1 200 OK\r\n") == 1


@pytest.mark.parametrize(
    "endless", [b"0\r\n" + b"x: y\r\n" * 200_000, b"0\r\nx: " + b"y" * 10**6, b"1;" + b"e" * 10**6]
)
def test_chunk_extensions_and_trailers_are_limited(server, endless):
    head = chunked(b"").removesuffix(b"0\r\n\r\n")
    try:
        response = exchange(server, head, endless)
    except OSError:
        return  # closed before everything was read
    assert not response.startswith(b"HTTP/1.1 200 ")


def test_errors_shorten_long_values(server):
    for fields in (
        {"tokens": ["x" * 10**6], "oov": "error"},
        {"x" * 10**6: 1, "tokens": []},
        {"tokens": [], "model": "x" * 10**6},
    ):
        response = server.lookup(fields)
        assert response.status_code in (404, 422)
        assert len(response.content) < 4000


def names(response):
    head, _, _ = response.partition(b"\r\n\r\n")
    return {line.partition(b":")[0] for line in head.split(b"\r\n")}


def test_streaming_stops_when_the_client_disconnects(start, tmp_path):
    write_sfq(tmp_path / "large.sfq", 5000, 300, 2)
    server = start(tmp_path)
    body = json.dumps({"ids": list(range(5000))}).encode()
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    connection = socket.create_connection(address, 10)
    # Resets the connection instead of closing it.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    head = f"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    connection.recv(100)
    connection.close()
    eventually(lambda: b'code="499"' in server.client.get("/metrics").content)
