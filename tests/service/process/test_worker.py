"""Connections of a worker: their number, and the time of TLS handshakes."""

import socket
import sys
from contextlib import ExitStack
from time import monotonic

import tests.helpers.servers
from tests.helpers.certificates import make_certificate
from tests.helpers.metrics import difference
from tests.helpers.servers import eventually


def address(server):
    return server.client.base_url.host, server.client.base_url.port


def test_excess_connections_get_503_and_are_logged_once(files, start, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -n 160\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(tests.helpers.servers.sys, "executable", str(python))
    server = start(files["small"])
    assert server.lookup({"tokens": ["the"]}).status_code == 200

    def connect():
        with ExitStack() as stack:
            open_ones = [
                stack.enter_context(socket.create_connection(address(server), 30)) for _ in range(50)
            ]
            refused = [connection.recv(1 << 16) for connection in open_ones[40:]]
            assert all(response.startswith(b"HTTP/1.1 503 ") for response in refused)
            assert all(b"connections are open" in response for response in refused)
            assert server.lookup({"tokens": ["the"]}).status_code == 200

    counted = difference(server, connect)["smallfry_requests_total"]
    assert counted["other", "503"] >= 10
    eventually(lambda: server.client.get("/livez").status_code == 200)
    _, log = server.stop()
    assert log.count("connections are open") == 1


def test_tls_handshakes_end_with_the_request_timeout(files, start, tmp_path):
    certificate, key = make_certificate(tmp_path)
    tls = ("--ssl-certfile", certificate, "--ssl-keyfile", key)
    server = start(files["small"], *tls, "--request-timeout", "1")
    begun = monotonic()
    with socket.create_connection(address(server), 30) as silent:
        silent.sendall(b"\x16\x03\x01")
        try:
            assert silent.recv(1) == b""
        except ConnectionResetError:
            pass
    assert monotonic() - begun < 20
