"""Log records on the standard error of a server, and their formats."""

from __future__ import annotations

import builtins
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from service.observability.logging import JsonFormatter, RepetitionFilter, TextFormatter
from tests.helpers.metrics import difference
from tests.helpers.servers import Server

Files = dict[str, Path]
Start = Callable[..., Server]

#: What starts a line, moves a cursor, or changes the direction of text.
CONTROLS = "\n\r\t\x0b\x0c\x1b[31m\0\x7f\x85\x9b31m\u2028\u2029\u202e\u2066\ufeff"
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) "
    r'((?P<client>\S+) "(?P<method>[A-Z]+) (?P<path>[^ "]+)" (?P<status>\d+) [\d.]+ ms (?P<id>\S+)|[^"].*)'
)


def standard_error(server: Server) -> str:
    """Stop a server; return what it wrote, without translated line ends."""
    server.client.close()
    server.process.terminate()
    assert server.process.stderr is not None
    content: bytes = server.process.stderr.buffer.read()
    assert server.process.wait(30) == 0
    return content.decode()


def requests(log: str) -> list[re.Match[str]]:
    lines = map(LINE.fullmatch, log.splitlines())
    return [line for line in lines if line and line["client"]]


def attack(server: Server) -> int:
    """Send control characters wherever a request has text; return the number of requests."""
    forged = f'/x{CONTROLS}2026-01-01 00:00:00,000 INFO 1.1.1.1:1 "GET /forged" 200 1.000 ms a\\'
    quoted = quote(forged, safe="")
    client = server.client
    admin = {"x-api-key": "admin"}
    queries = [
        client.build_request("GET", f"/{quoted}"),
        client.build_request("GET", f"/models/{quoted}"),
        client.build_request("GET", f"/models/{quoted}/file"),
        client.build_request("DELETE", f"/models/{quoted}", headers=admin),
        client.build_request("POST", f"/models/{quoted}/reload", headers=admin),
        client.build_request("POST", "/lookup", json={"model": forged, "tokens": [forged]}),
        client.build_request("POST", "/lookup?" + quoted, json={"tokens": ["the"], forged: 1}),
        client.build_request("PUT", "/models/new", json={"path": forged}, headers=admin),
        client.build_request("PUT", f"/models/{quoted}", json={"path": "small.sfq"}, headers=admin),
        client.build_request("GET", "/models", headers={"x-request-id": "a\x85b".encode("latin-1")}),
        client.build_request(
            "PUT",
            "/models/small",
            content=b"no file\x1b\n",
            headers=admin | {"content-type": "application/octet-stream"},
        ),
    ]
    for query in queries:
        client.send(query)
    address = urlsplit(server.address)
    for head in (
        b"GET /\x85\xe2\x80\xa8\xff HTTP/1.1\r\nhost: x\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-request-id: \x1b]0;x\x07\r\n",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall(head + b"connection: close\r\n\r\n")
            while connection.recv(1 << 16):
                pass
    return len(queries)


def test_a_request_forges_no_line_of_text(tmp_path: Path, files: Files, start: Start) -> None:
    (tmp_path / "small.sfq").write_bytes(files["small"].read_bytes())
    server = start(tmp_path, "--access-log", SMALLFRY_ADMIN_KEY="admin")
    sent = attack(server)
    log = standard_error(server)
    assert all(each.isprintable() for each in log.replace("\n", ""))
    assert all(LINE.fullmatch(line) for line in log.split("\n")[:-1])
    assert len(requests(log)) >= sent
    assert not any(line["client"].startswith("1.1.1.1") or line["id"] == "a" for line in requests(log))


def test_a_request_forges_no_json(tmp_path: Path, files: Files, start: Start) -> None:
    (tmp_path / "small.sfq").write_bytes(files["small"].read_bytes())
    server = start(tmp_path, "--access-log", "--log-format", "json", SMALLFRY_ADMIN_KEY="admin")
    sent = attack(server)
    log = standard_error(server)
    assert log.isascii() and log.replace("\n", "").isprintable()
    records = [json.loads(line) for line in log.splitlines()]
    assert sum(record["log.logger"] == "smallfry.access" for record in records) >= sent


def test_a_line_has_client_request_status_duration_and_id(files: Files, start: Start) -> None:
    server = start(files["small"], "--access-log")
    server.lookup({"tokens": ["the"]}, **{"x-request-id": "seven"})
    server.client.get("/models/no such?key=value")
    first, second = requests(standard_error(server))
    assert re.fullmatch(r"127\.0\.0\.1:\d+", first["client"])
    assert first.group("method", "path", "status", "id") == ("POST", "/lookup", "200", "seven")
    assert second.group("method", "path", "status") == ("GET", "/models/no%20such", "404")


def test_a_unix_socket_has_no_client_address(tmp_path: Path, files: Files, start: Start) -> None:
    server = start(files["small"], "--access-log", "--uds", str(tmp_path / "socket"))
    server.client.get("/livez")
    (line,) = requests(standard_error(server))
    assert line["client"] == "unix"


def test_json_has_the_names_of_the_elastic_common_schema(files: Files, start: Start) -> None:
    server = start(files["small"], "--access-log", "--log-format", "json")
    server.client.get("/models/small?key=value", headers={"x-request-id": "seven"})
    (record,) = (
        record
        for record in map(json.loads, standard_error(server).splitlines())
        if record["log.logger"] == "smallfry.access"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("@timestamp"))
    assert record.pop("client.port") > 0 and record.pop("event.duration") > 1000
    assert record.pop("message").startswith("127.0.0.1:")
    assert record == {
        "log.level": "info",
        "log.logger": "smallfry.access",
        "client.address": "127.0.0.1",
        "http.request.method": "GET",
        "url.path": "/models/small",
        "http.route": "/models/{name}",
        "http.response.status_code": 200,
        "http.request.id": "seven",
    }


@pytest.mark.parametrize(
    ("head", "status"), [(b"no\x1b[31m HTTP\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000, 431)]
)
def test_what_is_not_http_is_counted_and_logged_with_an_id(
    files: Files, start: Start, head: bytes, status: int
) -> None:
    server = start(files["small"], "--access-log")
    address = urlsplit(server.address)

    def send() -> None:
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            with suppress(OSError):
                connection.sendall(head)
            with suppress(ConnectionResetError):
                received.append(connection.recv(1 << 16))

    received: list[bytes] = []
    found = difference(server, send)["smallfry_requests_total"]
    assert found["other", str(status)] == 1
    line, *_ = [line for line in standard_error(server).splitlines() if '"- -"' in line]
    match = re.search(r'INFO 127\.0\.0\.1:\d+ "- -" (\d+) [\d.]+ ms (\w{18})$', line)
    assert match and match[1] == str(status)
    assert not received or b"x-request-id: " + match[2].encode() in received[0]


@pytest.mark.parametrize("format", ["text", "json"])
def test_logs_have_no_keys(files: Files, start: Start, format: str) -> None:
    server = start(files["small"], "--access-log", "--log-format", format, SMALLFRY_API_KEYS="the-first-key")
    server.lookup({"tokens": ["the"]}, authorization="Bearer the-first-key")
    server.client.post("/lookup?api_key=the-first-key", json={}, headers={"x-api-key": "wrong-key"})
    log = standard_error(server)
    assert log.count("/lookup") >= 2 and "the-first-key" not in log and "wrong-key" not in log


def record(
    message: str, *arguments: object, error: Exception | None = None, name: str = "x"
) -> logging.LogRecord:
    information = error and (type(error), error, error.__traceback__)
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, arguments, information)


def failure() -> Exception:
    try:
        try:
            raise KeyError("no\nsuch")
        except KeyError as cause:
            raise ValueError(f"bad{CONTROLS}2026-01-01 00:00:00,000 INFO forged") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("control", [*CONTROLS, "\ud800", "\U000e0001"])
def test_each_control_character_is_escaped(formatter: logging.Formatter, control: str) -> None:
    assert (
        formatter.format(record("file %s", f"a{control}b")).replace("31m", "").isprintable()
        or control in "[31m"
    )


def test_a_traceback_has_one_line_per_frame_and_message() -> None:
    head, *lines = TextFormatter().format(record("failed", error=failure())).split("\n")
    assert head.endswith("ERROR failed")
    assert [line for line in lines if line[:1] != " "] == [
        "Traceback (most recent call last):",
        "KeyError: 'no\\nsuch'",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        lines[-1],
    ]
    assert lines[-1].startswith(r"ValueError: bad\n\r\t\x0b\x0c\x1b[31m\x00\x7f\x85\x9b31m\u2028")
    assert r'    raise KeyError("no\nsuch")' in lines
    assert all(line.isprintable() for line in lines)


def test_a_group_of_exceptions_has_one_line_per_message() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("exception groups are new in Python 3.11")
    error = builtins.ExceptionGroup("two", [failure(), OSError("a\nb")])
    text = TextFormatter().format(record("failed", error=error))
    assert (
        re.search(r"\n +\| OSError: a\\n.*b\n", text) and "\n2026-01-01 00:00:00,000 INFO forged" not in text
    )


def test_json_has_the_traceback() -> None:
    content = json.loads(JsonFormatter().format(record("failed", error=failure())))
    assert content["message"] == "failed" and "KeyError: 'no" in content["error.stack_trace"]


def test_a_library_repeats_no_message_within_a_minute() -> None:
    keep = RepetitionFilter()
    library = record("failed", error=failure(), name="opentelemetry.exporter")
    assert keep.filter(library) and library.exc_info is None
    assert not keep.filter(record("failed again", name="opentelemetry.exporter"))
    assert [keep.filter(record("malformed", name="uvicorn.error")) for _ in range(2)] == [True, False]
    assert all(keep.filter(record("failed", error=failure(), name="uvicorn.error")) for _ in range(2))
    ours = record("failed", error=failure(), name="smallfry.error")
    assert keep.filter(ours) and keep.filter(ours) and ours.exc_info
