"""Connections and responses that fail."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from smallfry.client import (
    AsyncClient,
    Client,
    ClientError,
    ConnectFailed,
    ConnectionLost,
    MalformedResponse,
    MixedModels,
    ProtocolError,
    Timeout,
    Unauthorized,
    Unavailable,
)
from smallfry.client.transport.address import parse_address
from tests.helpers.scripted_server import (
    DIM,
    ScriptedServer,
    error_response,
    hang_up,
    keep_silent,
    response,
    rows,
    values,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


def test_a_connection_that_is_lost_is_replaced(connect, pauses):
    with ScriptedServer(hang_up, hang_up, rows(1.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [1.0]
    assert server.connections == 3


def test_a_connection_that_is_lost_each_time_is_an_error(connect, pauses):
    with ScriptedServer(*[hang_up] * 4) as server, pytest.raises(ConnectionLost):
        connect(server.url).lookup(["a"])
    assert len(pauses) == 3


def test_closed_idle_connection_is_replaced_immediately(connect, pauses):
    with ScriptedServer(rows(1.0), hang_up, rows(2.0)) as server:
        client = connect(server.url)
        assert values(client.lookup(["a"])) == [1.0]
        assert values(client.lookup(["a"])) == [2.0]
    assert server.connections == 2
    assert pauses == []


def test_a_connection_carries_many_requests(connect):
    with ScriptedServer(*[rows(1.0)] * 5) as server:
        client = connect(server.url)
        for _ in range(5):
            client.lookup(["a"])
    assert server.connections == 1


def test_a_connection_that_the_server_ends_is_not_used_again(connect):
    closing = rows(1.0).replace(b"Content-Type", b"Connection: close\r\nContent-Type")
    with ScriptedServer(closing, rows(2.0)) as server:
        client = connect(server.url)
        assert values(client.lookup(["a"])) == [1.0]
        assert values(client.lookup(["a"])) == [2.0]
    assert server.connections == 2


def test_unrequested_bytes_are_not_taken_for_a_response(connect):
    with ScriptedServer(rows(1.0) + rows(9.0), rows(2.0)) as server:
        client = connect(server.url, retries=0)
        try:
            assert values(client.lookup(["a"])) == [1.0]
        except ProtocolError:
            pass
        assert values(client.lookup(["a"])) == [2.0]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "http://127.0.0.1:0",
        "http://nobody.invalid:80",
        "unix:{0}/none",
        "unix:{0}/left",
    ],
)
def test_unreachable_server_is_retried_and_finally_named(connect, pauses, tmp_path, url):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{tmp_path}/left")
    address = str(parse_address(url.format(tmp_path)))
    with pytest.raises(ConnectFailed, match=f"cannot connect to {address}: .* Is the server running?"):
        connect(address).lookup(["a"])
    assert len(pauses) == 3


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxy_variables_are_ignored(connect, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with ScriptedServer(rows(1.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [1.0]


def test_silent_server_times_out_and_is_not_retried(connect):
    with ScriptedServer(keep_silent) as server, pytest.raises(Timeout, match=r"0\.05 s"):
        connect(server.url, timeout=0.05).lookup(["a"])
    assert server.connections == 1
    assert issubclass(Timeout, TimeoutError)


def test_dripping_server_times_out(connect):
    def drip(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n")
        while True:
            connection.sendall(b"drip")

    with ScriptedServer(drip) as server, pytest.raises(Timeout):
        connect(server.url, timeout=0.05).lookup(["a"])


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: %s\r\n" % (b"a" * 7000) * 12,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 100_000,
        CHUNKED + b"0\r\nX: " + b"y" * 1_000_000,
        CHUNKED + b"1;" + b"e" * 1_000_000,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 10_000,
        CHUNKED + b"1\r\na\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(101)) + b"\r\n",
        response(bytes((1 << 20) + (1 << 18) + 1)),
    ],
)
def test_response_that_is_not_http_is_an_error(connect, reply):
    with ScriptedServer(reply) as server, pytest.raises(ProtocolError):
        connect(server.url).lookup(["a"])
    assert len(server.requests) == 1


def test_the_timeout_covers_the_whole_response(connect):
    def pause(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        time.sleep(1.9)
        connection.sendall(b"{")
        keep_silent(connection)

    with ScriptedServer(pause) as server:
        begin = time.monotonic()
        with pytest.raises(Timeout):
            connect(server.url, timeout=2.0).lookup(["a"])
        assert time.monotonic() - begin < 3.5


def test_bytes_on_an_idle_connection_close_it(connect):
    flooded = threading.Event()

    def flood(connection):
        connection.sendall(rows(1.0))
        time.sleep(0.1)
        connection.sendall(b"x")
        flooded.set()
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 10_000)

    with ScriptedServer(flood, rows(2.0)) as server:
        client = connect(server.url)
        assert values(client.lookup(["a"])) == [1.0]
        flooded.wait(30)
        assert values(client.lookup(["a"])) == [2.0]


def test_incomplete_response_is_retried(connect, pauses):
    broken = rows(1.0)[:-1].replace(b"Content-Type", b"Connection: close\r\nContent-Type")
    with ScriptedServer(broken, rows(2.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [2.0]


def test_chunked_response_is_read(connect):
    head, _, body = rows(3.0).partition(b"\r\n\r\n")
    head = head.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:]))
    # Trailers change nothing.
    last = b"0\r\nContent-Type: text/html\r\n\r\n"
    with ScriptedServer(head + b"\r\n\r\n" + chunks + last) as server:
        assert values(connect(server.url).lookup(["a"])) == [3.0]


def test_interim_response_is_skipped(connect):
    with ScriptedServer(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + rows(3.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [3.0]


@pytest.mark.parametrize(
    "reply",
    [
        response(b"<h1>Welcome</h1>", content_type="text/html"),
        response(b"not json"),
        response(b"[1]"),
        response(b'{"model":"m","dim":2,"vectors":[[1,2]],"found":[true]}'),
        rows(1.0, 2.0),
        response(b"", content_type="application/vnd.safetensors"),
        response(b"\xff" * 100, content_type="application/vnd.smallfry.packed"),
        rows(float("nan")),
        rows(1.0).replace(b"vnd.smallfry.packed", b"vnd.safetensors"),
    ],
)
def test_malformed_response_is_an_error(connect, reply):
    with ScriptedServer(reply) as server, pytest.raises(MalformedResponse):
        connect(server.url).lookup(["a"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"models": [{}]}', b'{"models": 1}'])
def test_malformed_list_of_models_is_an_error(connect, body):
    with ScriptedServer(response(body)) as server, pytest.raises(MalformedResponse):
        connect(server.url).models()


def test_early_error_is_read_before_the_request_is_fully_sent(connect):
    def reject_early(connection):
        connection.sendall(error_response(401, Connection="close"))
        hang_up(connection)

    class EarlyServer(ScriptedServer):
        def _read(self, connection):
            return bool(connection.recv(1000))

    with EarlyServer(*[reject_early] * 4) as server, pytest.raises((Unauthorized, ConnectionLost)):
        connect(server.url, retries=0).lookup(["x" * 1000] * 16000)


def test_a_forked_child_opens_its_own_connections():
    import os

    with ScriptedServer(rows(1.0), rows(2.0), rows(3.0)) as server, Client(server.url) as client:
        client.lookup(["a"])
        child = os.fork()
        if child == 0:
            os._exit(0 if values(client.lookup(["a"])) == [2.0] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert values(client.lookup(["a"])) == [3.0]
    assert server.connections == 2


def test_cancelled_request_closes_its_connection():
    received = threading.Event()

    def receive(connection):
        received.set()
        keep_silent(connection)

    async def main(url):
        async with AsyncClient(url) as client:
            request = asyncio.ensure_future(client.lookup(["a"]))
            await asyncio.to_thread(received.wait, 30)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            return await client.lookup(["a"])

    with ScriptedServer(receive, rows(2.0)) as server:
        assert values(asyncio.run(main(server.url))) == [2.0]
    assert server.connections == 2


def test_at_most_32_connections_are_open_at_a_time():
    async def main(url):
        async with AsyncClient(url) as client:
            return await asyncio.gather(*[client.lookup(["a"]) for _ in range(200)])

    with ScriptedServer(*[rows(1.0)] * 200) as server:
        assert len(asyncio.run(main(server.url))) == 200
    assert server.connections <= 32


def test_values_beyond_float16_are_rejected_as_float16(connect):
    with ScriptedServer(rows(70000.0)) as server, pytest.raises(ValueError, match="65504"):
        connect(server.url).lookup(["a"], dtype="float16")


def test_every_error_of_the_client_is_one():
    for error in (Timeout, MixedModels, MalformedResponse, ConnectFailed, Unavailable):
        assert issubclass(error, ClientError)


def test_a_file_needs_no_package_of_the_extra(files):
    code = (
        "import sys\n"
        "sys.modules['httptools'] = sys.modules['orjson'] = None\n"
        "from smallfry.client import Client\n"
        f"assert Client('file://{files['small']}').lookup(['the']).found.all()\n"
        "try: Client('http://127.0.0.1:1')\n"
        "except ImportError as error: print(error)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'smallfry[client]'" in output


def test_the_client_loads_nothing_heavy():
    code = "import sys, smallfry.client; print(*{'torch', 'fastapi', 'httpx', 'tqdm'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == ""


def test_scripted_rows_are_as_wide_as_they_say():
    assert rows(1.0).endswith(np.ones(DIM, np.float32).tobytes() + b"\x01")
