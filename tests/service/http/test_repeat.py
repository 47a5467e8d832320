"""Requests that repeat a head: the same responses, limits, counts and timers as for parsed requests."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.http.repeat import RepeatedHead
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from tests.helpers.metrics import difference, gauge
from tests.helpers.servers import eventually, write_sfq

HEAD = b"POST /lookup HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n"
FIRST = HEAD % 5 + b"first"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def repeated(request):
    return RepeatedHead(request, lambda body, fields, write: False)


class Parsed:
    """What the parser finds in one request."""

    def __init__(self, data):
        self.url, self.body, self.complete, self.headers = b"", b"", 0, {}
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method, self.version = parser.get_method(), parser.get_http_version()

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.headers[name.lower()] = value

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete += 1

    def __eq__(self, other):
        return vars(self) == vars(other)


@pytest.mark.parametrize("body", [b"", b"x", b"first", b"a\r\n\r\nb", bytes(16000)])
def test_the_body_after_a_repeated_head_is_returned(body):
    fields = {b"content-length": b"%d" % len(body)}
    assert repeated(FIRST).match(HEAD % len(body) + body) == (body, 0, fields)
    assert repeated(FIRST).match(HEAD % len(body) + body[:3]) == (body[:3], len(body[3:]), fields)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [(b"X-Request-ID", b"1", b"~" * 128), (b"traceparent", TRACE, TRACE[::-1])],
)
def test_fields_that_identify_a_request_may_differ(name, first, second):
    requests = [FIRST.replace(b"Accept", b"%b:  %b \r\nAccept" % (name, value)) for value in (first, second)]
    for one, other in (requests, requests[::-1]):
        assert repeated(one).match(other)[2][name.lower()] in (first, second)
        assert repeated(one).match(other)[0] == b"first"
        assert repeated(one).match(other.replace(b" \r\n", b" x\r\n")) is None
        assert repeated(one).match(FIRST) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-request-id", b""),
        (b"x-request-id", b"a b"),
        (b"x-request-id", b"x" * 129),
        (b"traceparent", b"00-1"),
    ],
)
def test_fields_of_another_form_have_to_be_the_same(name, value):
    request = FIRST.replace(b"Accept", b"%b: %b\r\nAccept" % (name, value))
    assert repeated(request).match(request)[0] == b"first"
    assert repeated(request).match(request.replace(value + b"\r\n", value + b"1\r\n")) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        HEAD[:-1] % 5,
        HEAD % 5 + b"longer",
        HEAD % 5 + b"first" + FIRST,
        FIRST.replace(b"/lookup", b"/lookups"),
        FIRST.replace(b"Accept", b"accept"),
        FIRST.replace(b": 5", b": +5"),
        FIRST.replace(b": 5", b": 5 "),
        FIRST.replace(b": 5", b": 5, 5"),
        FIRST.replace(b": 5", b": "),
        FIRST.replace(b": 5", b": " + b"0" * 5000 + b"5"),
        FIRST.replace(b": 5", b": \xb2"),
        FIRST.replace(b": 5\r", b": 5"),
        FIRST[:-12],
    ],
)
def test_other_data_is_left_to_the_parser(request_):
    assert repeated(FIRST).match(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n\r\n" + FIRST,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: content-length: 1\r\n\r\nx",
        FIRST.replace(b"Accept", b"X-Request-ID: 1\r\nx-request-id: 2\r\nAccept"),
        FIRST.replace(b"Accept", b"Expect: 100-continue\r\nAccept"),
        FIRST.replace(b": 5", b": 123456789"),
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 4096 + b"\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_heads_that_are_long_or_without_one_length_are_not_kept(request_):
    with pytest.raises(ValueError, match="not followed by a body"):
        repeated(request_)


@example(b"Content-Length:5\r\ncontent-lengt: 7", 30, 1, b"\r\n")
@given(
    line=st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line),
    begin=st.integers(0, len(HEAD) + 8),
    removed=st.integers(0, 4),
    inserted=st.binary(max_size=4) | st.sampled_from([b"\r\n", b"0", b"1", b"12", b"x: y\r\n"]),
)
def test_what_is_taken_as_repeated_is_what_the_parser_would_read(line, begin, removed, inserted):
    first = FIRST.replace(b"Accept", line + b": 1\r\nAccept")
    data = first[:begin] + inserted + first[begin + removed :]
    try:
        expected = Parsed(first)
        match = repeated(first).match(data)
    except (httptools.HttpParserError, ValueError):
        return
    if match is not None and expected.complete:
        expected.body, missing, fields = match
        expected.headers |= fields
        expected.complete = not missing
        assert Parsed(data) == expected


@pytest.fixture(scope="module")
def server(files, start):
    return start(files["small"])


@pytest.fixture
def connect(server):
    with socket.create_connection(
        (server.client.base_url.host, server.client.base_url.port), 10
    ) as connection:
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
    ok = request(b'{"tokens": ["the"]}')
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
    body = b'{"tokens": ["the"]}'
    ids = [exchange(connect, request(body))[1]["x-request-id"] for _ in range(4)]
    assert len({*ids}) == 4
    for given_id in ("mine", "mine", "another", "1"):
        headers = f"x-request-id: {given_id}\r\n".encode()
        assert exchange(connect, request(body, headers=headers))[1]["x-request-id"] == given_id


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
    address = server.client.base_url.host, server.client.base_url.port
    body = b'{"tokens": ["the"]}'
    with socket.create_connection(address, 10) as connection:
        for key, status in ((b"secret", 200), (b"secret", 200), (b"secreT", 401), (b"secret", 200)):
            assert exchange(connection, request(body, headers=b"x-api-key: %b\r\n" % key))[0] == status
        assert exchange(connection, request(body))[0] == 401


def test_repeated_requests_wait_for_a_slot(tmp_path, start):
    options = "--max-concurrent-requests", "1", "--max-queue", "1", "--request-timeout", "5"
    write_sfq(tmp_path / "small.sfq")
    server = start(tmp_path, *options, SMALLFRY_ADMIN_KEY="admin")
    address = server.client.base_url.host, server.client.base_url.port
    data = request(b'{"tokens": ["the"]}')
    upload = (
        b"PUT /models/small HTTP/1.1\r\nhost: localhost\r\nx-api-key: admin\r\ncontent-length: 100000\r\n\r\n"
    )
    with socket.create_connection(address, 10) as connection:
        for _ in range(2):
            assert exchange(connection, data)[0] == 200
        with socket.create_connection(address, 10) as uploading:
            uploading.sendall(upload)
            eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
            connection.sendall(data)
            eventually(lambda: gauge(server, "smallfry_queued_requests") == 1)
        assert receive(connection)[0] == 200
        assert exchange(connection, data)[0] == 200


def test_a_repeated_head_gets_the_model_that_is_served_now(tmp_path, start):
    server = start(write_sfq(tmp_path / "words.sfq"), SMALLFRY_ADMIN_KEY="admin")
    address = server.client.base_url.host, server.client.base_url.port
    data = request(b'{"tokens": ["the"]}')
    with socket.create_connection(address, 10) as connection:
        before = [exchange(connection, data) for _ in range(2)]
        write_sfq(tmp_path / "words.sfq", seed=1)
        reloaded = server.client.post("/models/words/reload", headers={"x-api-key": "admin"})
        assert reloaded.status_code == 200
        after = exchange(connection, data)
    assert len({response[1]["x-smallfry-digest"] for response in (*before, after)}) == 2
    assert after[2] != before[1][2]


def test_repeated_requests_keep_a_connection_open(files, start):
    server = start(files["small"], "--keep-alive-timeout", "1")
    address = server.client.base_url.host, server.client.base_url.port
    data = request(b'{"tokens": ["the"]}')
    with socket.create_connection(address, 10) as connection:
        for _ in range(4):
            assert exchange(connection, data)[0] == 200
            time.sleep(0.6)
        assert exchange(connection, data)[0] == 200
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.8 < time.monotonic() - started < 5


def test_repeated_requests_are_logged(files, start):
    server = start(files["small"], "--access-log")
    address = server.client.base_url.host, server.client.base_url.port
    data = request(b'{"tokens": ["the"]}', target=b"/v1/lookup?x=1")
    with socket.create_connection(address, 10) as connection:
        ids = [exchange(connection, data)[1]["x-request-id"] for _ in range(3)]
    log = server.stop()[1]
    for request_id in ids:
        (line,) = [line for line in log.splitlines() if line.endswith(request_id)]
        assert '"POST /v1/lookup" 200 ' in line


def test_a_connection_is_closed_after_a_repeated_request_at_shutdown(files, start):
    server = start(files["small"])
    address = server.client.base_url.host, server.client.base_url.port
    data = request(b'{"tokens": ["the"]}')
    with socket.create_connection(address, 10) as connection:
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
    data = request(b'{"tokens": ["the"]}')
    connect.sendall(data[:10])
    time.sleep(0.1)
    assert exchange(connect, data[10:])[0] == 200
    assert exchange(connect, data)[0] == 200
    assert exchange(connect, data[10:])[0] == 400


def test_connections_do_not_share_heads(server):
    address = server.client.base_url.host, server.client.base_url.port

    def look_up(number):
        data = request(b'{"ids": [%d]}' % number, headers=b"x-request-id: %d\r\n" % number)
        with socket.create_connection(address, 10) as connection:
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
    repeated_one = request(b'{"tokens": ["the"]}')
    assert exchange(connect, repeated_one)[0] == exchange(connect, repeated_one)[0] == 200
    status, *_ = exchange(connect, before % len(repeated_one))
    assert status in (200, 404, 405)
    connect.sendall(repeated_one + after)
    connect.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connect.recv(1)


def test_a_repeated_head_within_another_head_is_no_request(connect):
    repeated_one = request(b'{"tokens": ["the"]}')
    assert exchange(connect, repeated_one)[0] == 200
    probe = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    assert exchange(connect, probe + b"\r\n" + probe + b"X-A: ")[0] == 200
    assert exchange(connect, repeated_one)[0] == 400


def test_a_repeated_head_does_not_raise_the_limit_of_the_body(tmp_path, start):
    server = start(write_sfq(tmp_path / "m.sfq"), "--max-body", "100")
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        assert exchange(connection, request(b'{"tokens": ["the"]}', PACKED))[0] == 200
        assert exchange(connection, request(b'{"tokens": ["the"]}' + b" " * 100, PACKED))[0] == 413


@pytest.fixture
def impatient(files, start):
    """A connection to a server of its own that waits a second for a body, after a request."""
    server = start(files["small"], "--request-timeout", "1")
    with socket.create_connection(
        (server.client.base_url.host, server.client.base_url.port), 10
    ) as connection:
        assert exchange(connection, request(b'{"tokens": ["the"]}'))[0] == 200
        yield server, connection


def test_a_late_body_of_a_repeated_head_is_waited_for(impatient):
    server, connection = impatient
    data = request(b'{"tokens": ["the"]}')
    expected = exchange(connection, data)[2]
    connection.sendall(data[:-5])
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    assert exchange(connection, data[-5:])[2] == expected
    assert exchange(connection, data)[2] == expected


def test_a_repeated_head_without_its_body_times_out(impatient):
    _, connection = impatient
    connection.sendall(request(b'{"tokens": ["the"]}')[:-5])
    assert receive(connection)[0] == 408
    assert connection.recv(1) == b""


def test_a_client_that_leaves_after_a_repeated_head_is_counted(impatient):
    server, connection = impatient

    def act():
        connection.sendall(request(b'{"tokens": ["the"]}')[:-5])
        time.sleep(0.1)
        connection.close()
        time.sleep(0.1)

    assert difference(server, act)["smallfry_requests_total"]["/lookup", "499"] == 1


def test_a_repeated_head_is_served_at_shutdown(impatient):
    server, connection = impatient
    data = request(b'{"tokens": ["the"]}')
    connection.sendall(data[:-5])
    server.process.terminate()
    time.sleep(0.4)
    status, headers, _ = exchange(connection, data[-5:])
    assert (status, headers["connection"]) == (200, "close")
