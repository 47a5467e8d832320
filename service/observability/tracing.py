"""OpenTelemetry: a span for each request. Needs the extra ``tracing``.

Why not an instrumentation library: ``docs/explanation/performance.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points
from threading import Thread
from time import time_ns
from urllib.parse import quote, urlsplit

from starlette.types import Scope

from service.errors import ConfigError
from smallfry import __version__

try:
    from opentelemetry import propagate, trace
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
except ModuleNotFoundError as error:
    raise ConfigError(f"--tracing: {error}; install it: pip install 'smallfry[tracing]'") from None

#: Entry points of exporters by ``OTEL_EXPORTER_OTLP_PROTOCOL``.
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_METHODS = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE".split())
#: Seconds for exporting the last spans at shutdown.
_MAX_FLUSH = 3.0
#: Characters of an attribute: spans wait in a queue.
_MAX_LENGTH = 1024

_tracer = trace.get_tracer("smallfry", __version__)


def record(scope: Scope, route: str, request_id: bytes, status: int, nanoseconds: int) -> None:
    """Record the span of a request that has ended, a child of the span in its headers.

    Names and attributes are those of the semantic conventions for HTTP servers, without the query.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    attributes: dict[str, str | int | list[str]] = {
        "http.request.method": method,
        "url.path": quote(scope["path"], errors="replace")[:_MAX_LENGTH],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        "http.response.status_code": status,
        "http.response.header.x-request-id": [request_id.decode()],
        **_address("server", _host(headers.get("host")) or scope.get("server")),
        **_address("client", scope.get("client")),
    }
    if route:
        attributes["http.route"] = route
    if "user-agent" in headers:
        attributes["user_agent.original"] = headers["user-agent"][:_MAX_LENGTH]
    if method == "_OTHER":
        attributes["http.request.method_original"] = scope["method"]
    if status >= 500:
        attributes["error.type"] = str(status)
    span = _tracer.start_span(
        f"{'HTTP' if method == '_OTHER' else method} {route}".rstrip(),
        propagate.extract(headers),
        trace.SpanKind.SERVER,
        attributes,
        start_time=time_ns() - nanoseconds,
    )
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)
    span.end()


def exporting(remaining: Callable[[], float]) -> AbstractContextManager[None]:
    """Return a context in which spans are exported as the ``OTEL_*`` variables say.

    Each worker enters it, as threads do not survive a fork. On exit, exporting the last spans ends
    after the `remaining` seconds, or `_MAX_FLUSH`.

    Raises
    ------
    ConfigError
        No installed package exports spans in that way.
    """
    return _exporting(_exporters(), remaining)


@contextmanager
def _exporting(exporters: list[type[SpanExporter]], remaining: Callable[[], float]) -> Iterator[None]:
    if not exporters:
        yield
        return
    # The variables are merged last, so that they may override the name.
    resource = Resource.create({SERVICE_NAME: "smallfry", SERVICE_VERSION: __version__})
    provider = TracerProvider(
        resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # A collector that does not answer would delay it by the timeout of each batch.
        ending = Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(min(remaining(), _MAX_FLUSH))


def _exporters() -> list[type[SpanExporter]]:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    names = [name.strip() for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")]
    return [_exporter(name) for name in names if name != "none"]


def _exporter(name: str) -> type[SpanExporter]:
    variable, value, advice = "OTEL_TRACES_EXPORTER", name, "choose otlp, console or none"
    if name == "otlp":
        for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            value = os.environ.get(variable, "").strip()
            if value:
                break
        value = value or "http/protobuf"
        name = _OTLP.get(value, value)
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        advice = f"install {package}, or choose http/protobuf" if value in _OTLP else "choose http/protobuf"
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: type[SpanExporter] = found.load()
        return exporter
    raise ConfigError(f"--tracing: {variable} is {value!r}, for which no package is installed; {advice}")


def _host(header: str | None) -> tuple[str, int | None] | None:
    """Parse a ``Host`` header."""
    try:
        url = urlsplit(f"//{header or ''}")
        return (url.hostname, url.port) if url.hostname else None
    except ValueError:
        return None


def _address(side: str, address: tuple[str, int | None] | None) -> dict[str, str | int]:
    host, port = address or (None, None)
    attributes: dict[str, str | int] = {}
    if host:
        attributes[f"{side}.address"] = host[:_MAX_LENGTH]
    if port:
        attributes[f"{side}.port"] = port
    return attributes
