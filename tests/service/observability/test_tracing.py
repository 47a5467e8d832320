"""OpenTelemetry spans, received by a collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.helpers.metrics import gauge
from tests.helpers.servers import Server, SlowRequest, eventually

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry is not installed"
)

Files = dict[str, Path]
Start = Callable[..., Server]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
SERVER, ERROR = 2, 2


@dataclass
class Collector:
    """A collector that records what it receives, and answers after `delay` seconds."""

    delay: float = 0.0
    received: list[Any] = field(default_factory=list)
    address: str = ""

    def environ(self, **variables: str) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.address,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        } | variables

    def resources(self) -> list[dict[str, Any]]:
        return [attributes(each.resource) for request in self.received for each in request.resource_spans]

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(item: Any) -> dict[str, Any]:
    values = {each.key: each.value for each in item.attributes}
    return {
        key: [each.string_value for each in value.array_value.values]
        if value.HasField("array_value")
        else value.string_value or value.int_value
        for key, value in values.items()
    }


@contextmanager
def collecting(delay: float = 0.0) -> Iterator[Collector]:
    collector = Collector(delay)
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if stopped.wait(collector.delay) and collector.delay:
                return
            collector.received.append(trace_service.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            stopped.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_each_request_is_one_span_under_its_parent(files: Files, start: Start, collector: Collector) -> None:
    server = start(files["small"], "--tracing", **collector.environ(OTEL_SERVICE_NAME="blue"))
    requests = {
        ("POST", "/lookup"): "POST /lookup",
        ("POST", "/v1/embeddings"): "POST /v1/embeddings",
        ("PUT", "/lookup"): "PUT /lookup",
        ("GET", "/models"): "GET /models",
        ("GET", "/models/small"): "GET /models/{name}",
        ("HEAD", "/models/small/file"): "HEAD /models/{name}/file",
        ("GET", "/openapi.json"): "GET /openapi.json",
        ("GET", "/docs/page.css"): "GET /docs/{file}",
        ("GET", "/metrics"): "GET /metrics",
        ("GET", "/unknown/path"): "GET",
        ("GET", "/models/{name}/other"): "GET",
        ("PROPFIND", "/models"): "HTTP /models",
    }
    for method, path in requests:
        body = {"tokens": ["the"]} if path == "/lookup" else {"input": "the"}
        server.client.request(method, path, json=body, headers={"traceparent": PARENT})
    assert server.stop()[0] == 0
    assert {resource["service.name"] for resource in collector.resources()} == {"blue"}
    spans = collector.spans()
    assert [span.name for span in spans] == list(requests.values())
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.parent_span_id.hex() for span in spans} == {SPAN}
    assert {span.kind for span in spans} == {SERVER}
    for span, (method, path) in zip(spans, requests, strict=True):
        found = attributes(span)
        known = method != "PROPFIND"
        assert found["http.request.method"] == (method if known else "_OTHER")
        assert found.get("http.route") == (span.name.partition(" ")[2] or None)
        assert found["url.path"] == path.replace("{", "%7B").replace("}", "%7D")


def test_repeated_lookups_are_spans_under_their_own_parents(
    files: Files, start: Start, collector: Collector
) -> None:
    server = start(files["small"], "--tracing", **collector.environ())
    parents = [f"{number:016x}" for number in range(1, 5)]
    ids = [
        server.lookup({"tokens": ["the"]}, traceparent=f"00-{TRACE}-{parent}-01").headers["x-request-id"]
        for parent in parents
    ]
    server.stop()
    spans = collector.spans()
    assert [span.parent_span_id.hex() for span in spans] == parents
    assert [attributes(span)["http.response.header.x-request-id"] for span in spans] == [
        [each] for each in ids
    ]


def test_a_request_without_parent_begins_a_trace(files: Files, start: Start, collector: Collector) -> None:
    server = start(files["small"], "--tracing", **collector.environ())
    for parent in ({}, {"traceparent": "00-nonsense-\x85-01".encode("latin-1")}):
        server.client.get("/livez", headers=parent)
    server.stop()
    first, second = collector.spans()
    assert not first.parent_span_id and not second.parent_span_id and first.trace_id != second.trace_id


def test_attributes_follow_the_conventions_without_the_query(
    files: Files, start: Start, collector: Collector
) -> None:
    server = start(files["small"], "--tracing", **collector.environ())
    headers = {"x-request-id": "seven", "user-agent": "tester", "host": "embeddings.localhost:81"}
    server.client.post(
        "/lookup?model=small",
        content=b"\0\0\0\0",
        headers=headers | {"content-type": "application/octet-stream"},
    )
    server.client.get(f"/{'x' * 5000}?api_key=secret", headers={"host": "[no"})
    server.stop()
    assert {resource["service.name"] for resource in collector.resources()} == {"smallfry"}
    first, second = collector.spans()
    found = attributes(first)
    assert found.pop("client.port") > 0
    assert found == {
        "http.request.method": "POST",
        "url.path": "/lookup",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.response.header.x-request-id": ["seven"],
        "http.route": "/lookup",
        "server.address": "embeddings.localhost",
        "server.port": 81,
        "client.address": "127.0.0.1",
        "user_agent.original": "tester",
    }
    assert first.status.code == 0
    assert 0 < first.end_time_unix_nano - first.start_time_unix_nano < 10 * 10**9
    assert len(attributes(second)["url.path"]) == 1024
    assert attributes(second)["server.address"] == "127.0.0.1"
    assert b"secret" not in b"".join(request.SerializeToString() for request in collector.received)


def test_statuses_of_errors_and_disconnections(
    files: Files, start: Start, collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "only.sfq").write_bytes(files["small"].read_bytes())
    server = start(tmp_path, "--tracing", SMALLFRY_ADMIN_KEY="admin", **collector.environ())
    server.client.get("/models/none")
    slow = SlowRequest(server)
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    slow.close()
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 1)
    assert server.client.delete("/models/only", headers={"x-api-key": "admin"}).status_code == 204
    assert server.client.get("/readyz").status_code == 503
    server.stop()
    found = {
        (span.name, attributes(span)["http.response.status_code"]): (
            span.status.code,
            attributes(span).get("error.type"),
        )
        for span in collector.spans()
        if span.name != "GET /metrics"
    }
    assert found == {
        ("GET /models/{name}", 404): (0, None),
        ("POST /lookup", 499): (0, None),
        ("DELETE /models/{name}", 204): (0, None),
        ("GET /readyz", 503): (ERROR, "503"),
    }


def test_the_span_of_a_streamed_response_ends_with_it(
    files: Files, start: Start, collector: Collector
) -> None:
    server = start(files["large"], "--tracing", **collector.environ())
    with server.client.stream("POST", "/lookup", json={"ids": [1] * 16384}) as response:
        stream = response.iter_raw()
        next(stream)
        sleep(0.5)
        for _ in stream:
            pass
    server.stop()
    (span,) = collector.spans()
    assert span.end_time_unix_nano - span.start_time_unix_nano > 0.5 * 10**9


def test_each_worker_exports(files: Files, start: Start, collector: Collector) -> None:
    detect = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process"}
    server = start(files["small"], "--tracing", "--workers", "2", **collector.environ(**detect))

    def workers() -> int:
        server.client.get("/livez", headers={"connection": "close"})
        return len({resource["process.pid"] for resource in collector.resources()})

    eventually(lambda: workers() == 2)
    server.stop()


@pytest.mark.parametrize(
    ("collector", "workers"), [("dead", "1"), ("hanging", "1"), ("hanging", "2"), ("slow", "1")]
)
def test_a_failing_collector_delays_neither_requests_nor_the_shutdown(
    files: Files, start: Start, collector: str, workers: str
) -> None:
    with collecting({"dead": 0, "hanging": 60, "slow": 0.3}[collector]) as other:
        address = "http://127.0.0.1:1" if collector == "dead" else other.address
        server = start(
            files["small"],
            *("--tracing", "--workers", workers, "--shutdown-timeout", "2"),
            **other.environ(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="50"),
        )
        times = []
        for _ in range(300):
            begin = monotonic()
            assert server.client.get("/livez").status_code == 200
            times.append(monotonic() - begin)
            sleep(0.002)
        begin = monotonic()
        code, log = server.stop()
        # An export to a collector that hangs takes 10 s.
        assert code == 0 and monotonic() - begin < 8
        assert max(times) < 5
        exporter = [line for line in log.splitlines() if "export" in line]
        assert "Traceback" not in log and len(exporter) <= 3 * int(workers)
        if collector == "slow":
            assert not exporter and len(other.spans()) == 300
        if collector == "dead":
            assert exporter


def refusal(files: Files, **variables: str) -> str:
    """Start a server that cannot start; return what it says."""
    command = [
        sys.executable,
        "-m",
        "service",
        "--port",
        "0",
        "--tracing",
        "--embeddings",
        str(files["small"]),
    ]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_protocol_without_a_package_is_refused(files: Files) -> None:
    pytest.importorskip("opentelemetry.sdk")
    try:
        import opentelemetry.exporter.otlp.proto.grpc  # noqa: F401
    except ModuleNotFoundError:
        message = refusal(files, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
        assert "install opentelemetry-exporter-otlp-proto-grpc, or choose http/protobuf" in message
    assert "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'http/json'" in refusal(
        files, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/json", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    message = refusal(files, OTEL_TRACES_EXPORTER="zipkin")
    assert "OTEL_TRACES_EXPORTER is 'zipkin'" in message and "otlp, console or none" in message


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    ],
)
def test_variables_turn_spans_off(
    files: Files, start: Start, collector: Collector, variables: dict[str, str]
) -> None:
    server = start(files["small"], "--tracing", **collector.environ(**variables))
    assert server.client.get("/livez").status_code == 200
    code, log = server.stop()
    assert code == 0 and not collector.received and "Traceback" not in log


def test_the_sampler_follows_the_parent(files: Files, start: Start, collector: Collector) -> None:
    server = start(
        files["small"], "--tracing", **collector.environ(OTEL_TRACES_SAMPLER="parentbased_always_off")
    )
    server.client.get("/livez")
    server.client.get("/readyz", headers={"traceparent": PARENT})
    server.client.get("/models", headers={"traceparent": PARENT.removesuffix("1") + "0"})
    server.stop()
    assert [span.name for span in collector.spans()] == ["GET /readyz"]


def test_the_console_exporter_prints_spans(files: Files, start: Start) -> None:
    server = start(files["small"], "--tracing", OTEL_TRACES_EXPORTER="console")
    server.client.get("/livez")
    server.client.close()
    server.process.terminate()
    output, _ = server.process.communicate(timeout=30)
    assert json.loads(output)["name"] == "GET /livez"
