"""Requests that repeat a head get the responses, limits, counts and timers of parsed requests."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from tests.helpers.metrics import difference, gauge, samples
from tests.helpers.servers import eventually, write_sfq

LOOKUP = b'{"tokens": ["the"]}'


def connected(server):
    """Return a connection to a server."""
    return socket.create_connection((server.client.base_url.host, server.client.base_url.port), 10)


@pytest.fixture(scope="module")
def server(files, start):
    return start(files["small"])


@pytest.fixture
def connect(server):
    with connected(server) as connection:
        yield connection


def request(body, accept=JSON, content_type=JSON, headers=b"", target=b"/lookup"):
    types = f"accept: {accept}\r\ncontent-type: {content_type}\r\n".encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b%bcontent-length: %d\r\n\r\n"
    return head % (target, types, headers, len(body)) + body


def exchange(connection, data):
    """Send data; return status, headers and body of the next response."""
    connection.sendall(data)
    return receive(connection)


def receive(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(1 << 16)
    return int(status.split()[1]), headers, body


QUERIES = {
    "tokens": {"tokens": ["the", "cat", "no-such-word"]},
    "options": {"tokens": ["the", "no-such-word"], "model": "small", "oov": "mean", "dtype": "float16"},
    "nested": {"tokens": [["the"], ["cat", "sat"]], "pool": "mean"},
    "ids": {"ids": [3, 0]},
    "no tokens": {"tokens": []},
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("accept", [JSON, RAW, SAFETENSORS, PACKED])
def test_repeated_requests_get_the_same_response(connect, name, accept):
    body = json.dumps(QUERIES[name]).encode()
    accept = f"{accept}, */*;q=0.1"
    first, *others = [exchange(connect, request(body, accept)) for _ in range(3)]
    for status, headers, content in others:
        assert (status, content) == (200, first[2])
        assert list(headers) == list(first[1])
        same = headers.keys() - {"x-request-id", "server-timing", "date"}
        assert {name: headers[name] for name in same} == {name: first[1][name] for name in same}


def test_row_numbers_in_binary_are_repeated(connect):
    bodies = [bytes([row, 0, 0, 0]) for row in range(5)]
    rows = [exchange(connect, request(body, RAW, RAW))[2] for body in bodies]
    every = request(b"".join(bodies), RAW, RAW)
    assert b"".join(rows) == exchange(connect, every)[2]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"tokens": "the"}', 422),
        (b'{"tokens": ["the"], "model": "other"}', 404),
        (b'{"tokens": ["the", "no-such-word"], "oov": "error"}', 422),
    ],
)
def test_errors_of_repeated_requests_are_those_of_first_ones(connect, server, body, status):
    expected = server.client.post("/lookup", content=body, headers={"content-type": JSON})
    ok = request(LOOKUP)
    for _ in range(2):
        assert exchange(connect, ok)[0] == 200
        found, _, content = exchange(connect, request(body))
        assert (found, content) == (status, expected.content)


def test_repeated_requests_are_counted_like_others(connect, server):
    data = request(b'{"tokens": ["the", "cat", "no-such-word"]}')
    exchange(connect, data)
    changes = difference(server, lambda: [exchange(connect, data) for _ in range(5)])
    assert changes["smallfry_requests_total"]["/lookup", "200"] == 5
    assert changes["smallfry_tokens_total"]["found",] == 10
    assert changes["smallfry_tokens_total"]["unknown",] == 5
    assert changes["smallfry_request_duration_seconds_count"]["/lookup",] == 5
    assert changes["smallfry_request_duration_seconds_sum"]["/lookup",] > 0
    assert changes["smallfry_in_flight_requests"][()] == 0


def test_large_responses_to_a_repeated_head_are_counted_once(connect, server):
    small, large = ({"ids": [0] * count} for count in (1, 10_000))
    data = [request(json.dumps(query).encode(), RAW) for query in (small, large)]

    def act():
        for each in data * 2:
            assert exchange(connect, each)[0] == 200

    assert difference(server, act)["smallfry_tokens_total"]["found",] == 2 * 10_001


def test_request_ids_are_given_ones_or_new(connect):
    ids = [exchange(connect, request(LOOKUP))[1]["x-request-id"] for _ in range(4)]
    assert len({*ids}) == 4
    for given_id in ("mine", "mine", "another", "1"):
        headers = f"x-request-id: {given_id}\r\n".encode()
        assert exchange(connect, request(LOOKUP, headers=headers))[1]["x-request-id"] == given_id


def test_pipelined_and_divided_requests_follow_repeated_ones(connect):
    one, two = (request(b'{"tokens": ["%b"]}' % token) for token in (b"the", b"cat"))
    expected = [exchange(connect, each)[2] for each in (one, two)]
    connect.sendall(one + two)
    received = b""
    while received.count(b"HTTP/1.1 200 OK") < 2 or not received.endswith(expected[1]):
        received += connect.recv(1 << 16)
    assert expected[0] in received
    assert exchange(connect, one)[2] == expected[0]
    for position in (1, 40, len(one) - 1):
        connect.sendall(one[:position])
        time.sleep(0.02)
        assert exchange(connect, one[position:])[2] == expected[0]
        assert exchange(connect, two)[2] == expected[1]


def test_a_repeated_head_keeps_its_key_and_another_needs_its_own(files, start):
    server = start(files["small"], SMALLFRY_API_KEYS="secret")
    with connected(server) as connection:
        for key, status in ((b"secret", 200), (b"secret", 200), (b"secreT", 401), (b"secret", 200)):
            assert exchange(connection, request(LOOKUP, headers=b"x-api-key: %b\r\n" % key))[0] == status
        assert exchange(connection, request(LOOKUP))[0] == 401


def test_repeated_requests_wait_for_a_slot(tmp_path, start):
    options = "--max-concurrent-requests", "1", "--max-queue", "1", "--request-timeout", "5"
    write_sfq(tmp_path / "small.sfq")
    server = start(tmp_path, *options, SMALLFRY_ADMIN_KEY="admin")
    data = request(LOOKUP)
    upload = (
        b"PUT /models/small HTTP/1.1\r\nhost: localhost\r\nx-api-key: admin\r\ncontent-length: 100000\r\n\r\n"
    )
    with connected(server) as connection:
        for _ in range(2):
            assert exchange(connection, data)[0] == 200
        with connected(server) as uploading:
            uploading.sendall(upload)
            eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
            connection.sendall(data)
            eventually(lambda: gauge(server, "smallfry_queued_requests") == 1)
        assert receive(connection)[0] == 200
        assert exchange(connection, data)[0] == 200


def test_a_repeated_head_gets_the_model_that_is_served_now(tmp_path, start):
    server = start(write_sfq(tmp_path / "words.sfq"), SMALLFRY_ADMIN_KEY="admin")
    data = request(LOOKUP)
    with connected(server) as connection:
        before = [exchange(connection, data) for _ in range(2)]
        write_sfq(tmp_path / "words.sfq", seed=1)
        reloaded = server.client.post("/models/words/reload", headers={"x-api-key": "admin"})
        assert reloaded.status_code == 200
        after = exchange(connection, data)
    assert len({response[1]["x-smallfry-digest"] for response in (*before, after)}) == 2
    assert after[2] != before[1][2]


def test_repeated_requests_keep_a_connection_open(files, start):
    server = start(files["small"], "--keep-alive-timeout", "3")
    data = request(LOOKUP)
    with connected(server) as connection:
        for _ in range(4):
            assert exchange(connection, data)[0] == 200
            time.sleep(1)
        assert exchange(connection, data)[0] == 200
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert 2.5 < time.monotonic() - started < 8


def test_repeated_requests_are_logged(files, start):
    server = start(files["small"], "--access-log")
    data = request(b'{"tokens": ["the"]}', target=b"/v1/lookup?x=1")
    with connected(server) as connection:
        ids = [exchange(connection, data)[1]["x-request-id"] for _ in range(3)]
    log = server.stop()[1]
    for request_id in ids:
        (line,) = [line for line in log.splitlines() if line.endswith(request_id)]
        assert '"POST /v1/lookup" 200 ' in line


def test_a_connection_is_closed_after_a_repeated_request_at_shutdown(files, start):
    server = start(files["small"])
    data = request(LOOKUP)
    with connected(server) as connection:
        for _ in range(2):
            assert "connection" not in exchange(connection, data)[1]
        server.process.terminate()
        closing = None
        while closing is None:
            status, headers, _ = exchange(connection, data)
            assert status == 200
            closing = headers.get("connection")
        assert closing == "close"
        assert connection.recv(1) == b""


def test_a_part_of_a_head_is_not_a_repeated_one(connect):
    data = request(LOOKUP)
    connect.sendall(data[:10])
    time.sleep(0.1)
    assert exchange(connect, data[10:])[0] == 200
    assert exchange(connect, data)[0] == 200
    assert exchange(connect, data[10:])[0] == 400


def test_connections_do_not_share_heads(server):

    def look_up(number):
        data = request(b'{"ids": [%d]}' % number, headers=b"x-request-id: %d\r\n" % number)
        with connected(server) as connection:
            responses = [exchange(connection, data) for _ in range(20)]
        assert {headers["x-request-id"] for _, headers, _ in responses} == {str(number)}
        return responses[0][2], {content for _, _, content in responses}

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(look_up, range(8)))
    assert all(contents == {first} for first, contents in results)
    assert len({first for first, _ in results}) == 8


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", b""),
        (b"DELETE /lookup HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", b""),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", b""),
        (
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
            b"\r\n0\r\n\r\n",
        ),
    ],
)
def test_a_body_is_no_repeated_request_if_the_response_came_before_it(connect, before, after):
    repeated_one = request(LOOKUP)
    assert exchange(connect, repeated_one)[0] == exchange(connect, repeated_one)[0] == 200
    status, *_ = exchange(connect, before % len(repeated_one))
    assert status in (200, 404, 405)
    connect.sendall(repeated_one + after)
    time.sleep(0.1)
    following = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-request-id: following\r\n\r\n"
    assert exchange(connect, following)[1]["x-request-id"] == "following"


def test_a_repeated_head_within_another_head_is_no_request(connect):
    repeated_one = request(LOOKUP)
    assert exchange(connect, repeated_one)[0] == 200
    probe = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    assert exchange(connect, probe + b"\r\n" + probe + b"X-A: ")[0] == 200
    assert exchange(connect, repeated_one)[0] == 400


def test_a_repeated_head_does_not_raise_the_limit_of_the_body(tmp_path, start):
    server = start(write_sfq(tmp_path / "m.sfq"), "--max-body", "100")
    with connected(server) as connection:
        assert exchange(connection, request(LOOKUP, PACKED))[0] == 200
        assert exchange(connection, request(LOOKUP + b" " * 100, PACKED))[0] == 413


@pytest.fixture
def patient(files, start):
    """A server of its own that waits 5 seconds for a body, and a connection after a request."""
    server = start(files["small"], "--request-timeout", "5")
    with connected(server) as connection:
        assert exchange(connection, request(LOOKUP))[0] == 200
        yield server, connection


def test_a_late_body_of_a_repeated_head_is_waited_for(patient):
    server, connection = patient
    data = request(LOOKUP)
    expected = exchange(connection, data)[2]
    connection.sendall(data[:-5])
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    assert exchange(connection, data[-5:])[2] == expected
    assert exchange(connection, data)[2] == expected


@pytest.mark.parametrize("pause", [None, 0.2])
def test_a_repeated_head_whose_body_does_not_end_times_out(files, start, pause):
    server = start(files["small"], "--request-timeout", "1")
    data = request(LOOKUP + b" " * 100)
    with connected(server) as connection:
        assert exchange(connection, data)[0] == 200
        connection.sendall(data[:-100])
        connection.settimeout(pause or 10)
        for byte in range(100):
            try:
                assert connection.recv(12) == b"HTTP/1.1 408"
                break
            except TimeoutError:
                assert byte < 50
                connection.sendall(b" ")


def test_a_client_that_leaves_after_a_repeated_head_is_counted(patient):
    server, connection = patient

    def disconnected():
        counted = samples(server.client.get("/metrics").text)["smallfry_requests_total"]
        return counted.get(("/lookup", "499"), 0)

    assert disconnected() == 0
    connection.sendall(request(LOOKUP)[:-5])
    connection.close()
    eventually(lambda: disconnected() == 1)


def test_a_repeated_head_is_served_at_shutdown(patient):
    server, connection = patient
    data = request(LOOKUP)
    connection.sendall(data[:-5])
    server.process.terminate()
    eventually(lambda: not accepts(server))
    assert exchange(connection, data[-5:])[0] == 200


def accepts(server):
    try:
        connected(server).close()
    except OSError:
        return False
    return True
