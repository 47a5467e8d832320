"""OpenTelemetry spans."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry is not installed"
)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector():
    """A collector that records what it receives."""
    received, arrived = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received, arrived
        server.shutdown()
        thread.join()


def test_each_request_is_a_span_under_its_parent(files, start, collector):
    address, received, arrived = collector
    server = start(
        files["small"],
        "--tracing",
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_SERVICE_NAME="embeddings-blue",
    )
    server.lookup({"tokens": ["the"]}, traceparent=PARENT)
    server.client.get("/models/small", headers={"traceparent": PARENT})
    assert arrived.wait(20)
    server.stop()
    requests = [trace_service.ExportTraceServiceRequest.FromString(body) for body in received]
    resources = [resource for request in requests for resource in request.resource_spans]
    names = [item.value.string_value for each in resources for item in each.resource.attributes]
    assert "embeddings-blue" in names and "smallfry" not in names
    spans = {
        span.name: span
        for resource in resources
        for scope in resource.scope_spans
        for span in scope.spans
        if scope.scope.name == "smallfry"
    }
    assert set(spans) == {"POST /lookup", "GET /models/{name}"}
    for span in spans.values():
        assert span.trace_id.hex() in PARENT and span.parent_span_id.hex() in PARENT
        attributes = {item.key: item.value for item in span.attributes}
        assert attributes["http.response.status_code"].int_value == 200
