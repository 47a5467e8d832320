"""HTTP/1.1 on the wire: pipelining, upgrades, chunked bodies, disconnects."""

import json
import select
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path
from resource import getpagesize
from time import monotonic

import pytest

from service.http.protocol import MAX_FIELDS, MAX_HEAD, MAX_PIPELINE
from tests.helpers.metrics import difference, gauge
from tests.helpers.servers import eventually, write_sfq

BODY = b'{"tokens":["the"]}'


@pytest.fixture(scope="module")
def server(files, start):
    return start(files["small"])


@pytest.fixture(scope="module")
def large(files, start):
    return start(files["large"])


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


@pytest.mark.parametrize(
    "head",
    [
        b"a:\r\n" * 100,
        b"a:\r\n" * 100_000,
        b"x: " + b"y" * MAX_HEAD,
        b"".join(b"x%d: %b\r\n" % (i, b"y" * 1000) for i in range(70)),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_heads_have_a_limited_length_and_number_of_fields(server, head, end):
    if not end:
        head += b"z: " * MAX_HEAD
    try:
        response = exchange(server, b"GET /livez HTTP/1.1\r\nhost: x\r\n" + head + end)
    except ConnectionResetError:
        return  # closed before everything was read
    assert response.startswith(b"HTTP/1.1 431 ") and b"\r\nconnection: close\r\n" in response
    assert b"header fields" in response or b"%d bytes" % MAX_HEAD in response


def test_heads_of_as_many_fields_as_allowed_are_served(server):
    fields = b"a:\r\n" * (MAX_FIELDS - 2)
    response = exchange(server, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + fields + b"\r\n")
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("fields", "status"), [(MAX_FIELDS, b"200"), (MAX_FIELDS + 1, b"431")])
def test_a_query_has_a_limited_number_of_fields(server, fields, status):
    query = b"&".join([b"a="] * fields)
    head = b"GET /dashboard/traffic?%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % query
    assert exchange(server, head).startswith(b"HTTP/1.1 %b " % status)


@pytest.mark.parametrize("fields", [b"", b"a:\r\n" * 50])
def test_pipelined_requests_are_limited(server, fields):
    first = b"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"
    response = exchange(server, first, b" ", lookup(b"x\r\n" + fields.rstrip()) * (MAX_PIPELINE + 2))
    assert response.count(b"HTTP/1.1 ") <= MAX_PIPELINE + 1


def test_errors_shorten_long_values(server):
    for fields in (
        {"tokens": ["x" * 10**6], "oov": "error"},
        {"x" * 10**6: 1, "tokens": []},
        {"tokens": [], "model": "x" * 10**6},
    ):
        response = server.lookup(fields)
        assert response.status_code in (404, 422)
        assert len(response.content) < 4000


HOST = b"host: x\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
PIECES = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (HOST + LENGTH, BODY, 200),
        (HOST + CHUNKED, PIECES, 200),
        (HOST + b"transfer-encoding: Chunked\r\n", PIECES, 200),
        (b"host:\r\n" + LENGTH, BODY, 200),
        (LENGTH, BODY, 400),
        (HOST + HOST + LENGTH, BODY, 400),
        (HOST + b"Host: y\r\n" + LENGTH, BODY, 400),
        (HOST + LENGTH + LENGTH, BODY, 400),
        (HOST + LENGTH + b"content-length: 1\r\n", BODY, 400),
        (HOST + b"content-length: 18, 18\r\n", BODY, 400),
        (HOST + b"content-length: +18\r\n", BODY, 400),
        (HOST + b"content-length: 1" + b"0" * 30 + b"\r\n", BODY, 400),
        (HOST + LENGTH + CHUNKED, PIECES, 400),
        (HOST + CHUNKED + LENGTH, PIECES, 400),
        (HOST + CHUNKED + CHUNKED, PIECES, 400),
        (HOST + b"transfer-encoding: gzip, chunked\r\n", PIECES, 400),
        (HOST + b"transfer-encoding: chunked, gzip\r\n", PIECES, 400),
        (HOST + b"transfer-encoding: identity\r\n", PIECES, 400),
        (HOST + b"transfer-encoding: xchunked\r\n", PIECES, 400),
        (HOST + CHUNKED, PIECES.replace(b"12", b"0x12"), 400),
        (HOST + CHUNKED, PIECES.replace(b"12", b"10"), 400),
        (HOST + b"x: a\r\n b\r\n" + LENGTH, BODY, 400),
        (b" x: a\r\n" + HOST + LENGTH, BODY, 400),
        (b"host : x\r\n" + LENGTH, BODY, 400),
        (HOST + b"x: a\rb\r\n" + LENGTH, BODY, 400),
        (HOST + b"x: a\0b\r\n" + LENGTH, BODY, 400),
        (HOST + b"x y: a\r\n" + LENGTH, BODY, 400),
    ],
)
def test_ambiguous_requests_are_rejected(server, headers, body, status):
    close = b"connection: close\r\n" if status == 200 else b""
    response = exchange(server, b"POST /lookup HTTP/1.1\r\n" + headers + close + b"\r\n" + body)
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in response
    assert (b'"found":[true]' if status == 200 else b'"malformed_request"') in response


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://other/livez HTTP/1.1", 200),
        (b"\r\nGET /livez HTTP/1.1", 200),
        (b"GET /livez HTTP/1.0", 200),
        (b"GET /livez HTTP/1.2", 400),
        (b"GET /livez HTTP/2.0", 400),
        (b"GET /livez", 400),
        (b"get /livez HTTP/1.1", 400),
        (b"CONNECT x:443 HTTP/1.1", 400),
        (b"GET /liv\x01z HTTP/1.1", 400),
    ],
)
def test_request_lines(server, line, status):
    response = exchange(server, line + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 %d " % status)


def test_a_malformed_request_never_gets_the_response_of_the_one_before(server):
    response = exchange(server, lookup(b"one"), b"GET /livez HTTP/1.1\r\n\r\n")
    assert not response.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("host", [b"", HOST])
def test_http_1_0_gets_streamed_responses_without_chunks(large, host):
    body = json.dumps({"ids": list(range(5000))}).encode()
    head = b"POST /lookup HTTP/1.0\r\n" + host + b"content-length: %d\r\n\r\n" % len(body)
    head, _, content = exchange(large, head + body).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head and b"content-length" not in head
    assert content == large.client.post("/lookup", content=body).content


def test_http_1_0_clients_that_do_not_read_hold_little_memory(large):
    body = json.dumps({"ids": list(range(5000))}).encode()
    whole = len(large.client.post("/lookup", content=body).content)
    before = resident(large)
    head = b"POST /lookup HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    address = (large.client.base_url.host, large.client.base_url.port or 80)
    connections = [socket.create_connection(address, 30) for _ in range(16)]
    for connection in connections:
        connection.sendall(head + body)
        connection.recv(10)
    assert resident(large) - before < len(connections) * whole / 3
    for connection in connections:
        connection.close()


def resident(server):
    """Return the bytes that a server's process holds in memory."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * getpagesize()


def test_http_1_0_gets_responses_of_known_length(large):
    head, _, content = exchange(large, b"GET /models HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(content) in head
    head, _, content = exchange(large, b"HEAD /models HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"\r\ncontent-length: " in head and content == b""


def test_idle_connections_stay_open_for_the_keep_alive_timeout(files, start):
    server = start(files["small"], "--request-timeout", "0.5", "--keep-alive-timeout", "4")
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    started = monotonic()
    with (
        socket.create_connection(address, 10) as idle,
        socket.create_connection(address, 10) as silent,
        socket.create_connection(address, 10) as half,
    ):
        for connection in (idle, half):
            connection.sendall(lookup(b"one"))
            assert connection.recv(1 << 16).endswith(b'"found":[true]}')
        half.sendall(b"GET /livez HTTP/1.1\r\n")
        for connection in (silent, half):
            assert ended(connection)
        assert not select.select([idle], [], [], 0)[0]
        assert ended(idle)
        assert monotonic() - started > 3.5


def test_a_request_after_a_long_idle_time_may_arrive_in_pieces(files, start):
    server = start(files["small"], "--request-timeout", "1.5")
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    with socket.create_connection(address, 10) as connection:
        for _ in range(2):
            connection.sendall(lookup(b"one")[:20])
            assert not select.select([connection], [], [], 0.3)[0]
            connection.sendall(lookup(b"one")[20:])
            assert connection.recv(1 << 16).endswith(b'"found":[true]}')
            assert not select.select([connection], [], [], 3)[0]


def ended(connection):
    """Wait until the server closes the connection, gracefully or not."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


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


def test_streaming_stops_when_a_client_disconnects_that_has_pipelined(large):
    body = json.dumps({"ids": list(range(5000)) * 3}).encode()
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    address = (large.client.base_url.host, large.client.base_url.port or 80)

    def disconnect():
        with socket.create_connection(address, 10) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(head + body + lookup(b"x") * 3)
            connection.recv(100)
        eventually(lambda: gauge(large, "smallfry_in_flight_requests") == 1)

    counted = difference(large, disconnect)["smallfry_requests_total"]
    assert counted["/lookup", "499"] == 1 and counted.get(("/lookup", "200"), 0) == 0


def test_bodies_of_tiny_chunks_are_rejected(server):
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    try:
        response = exchange(server, head, b"1\r\n \r\n" * 5000)
    except ConnectionResetError:
        return
    assert response.startswith(b"HTTP/1.1 400 ") and b"chunks" in response


def test_unfinished_requests_of_many_connections_take_little_memory(files, start):
    server = start(files["small"])
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\n"
    sent = head + b"x: y\r\n" * 97, head + b"content-length: 2000000\r\n\r\n" + b"[" * 1_900_000
    assert server.lookup({"tokens": ["the"]}).status_code == 200
    before = resident(server)
    with ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(socket.create_connection(address_of(server), 10))
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.send(sent[number % 2])
        for _ in range(20):
            assert server.lookup({"tokens": ["the"]}).status_code == 200
        assert resident(server) - before < 64 << 20
        body = b'{"tokens": ["the"]}' + b" " * 100_000
        assert server.client.post("/lookup", content=body).status_code == 200


def address_of(server):
    return server.client.base_url.host, server.client.base_url.port or 80
