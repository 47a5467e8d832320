"""Routes of operation: health, statistics, metrics and the welcome page."""

from __future__ import annotations

from functools import cache
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import smallfry
from service.errors import Unavailable
from service.http.response import json_response
from service.observability import stats
from service.observability.metrics import CONTENT_TYPE, render
from service.observability.stats import Stats
from service.routes import schema
from service.routes.dashboard import PAGE, accepts_page
from service.routes.openapi import Api, error_responses
from service.routes.renderer import Renderer
from service.server import Server

_OK = {"status": "ok"}
_WELCOME = """smallfry {version} {state}

POST /lookup   {{"tokens": ["the", "cat"]}} to vectors
GET  /models   loaded models
GET  /stats    memory and requests
GET  /docs     everything else
"""


def add_routes(api: Api, server: Server) -> None:
    """Add ``/stats``, ``/metrics``, the health checks, and ``/``, which is the dashboard for browsers."""
    models, started, renderer = server.models, monotonic(), Renderer()
    expected = cache(api.responses)

    async def measure() -> stats.Report:
        # The kernel walks the page tables of all processes: milliseconds for each mapped GB.
        own = await run_in_threadpool(
            stats.read, models, server.devices, server.scoreboard, monotonic() - started
        )
        return own if server.gather is None else await server.gather(own)

    async def render_stats() -> bytes:
        measured = (await measure()).stats
        return (await run_in_threadpool(measured.model_dump_json)).encode()

    async def render_metrics() -> bytes:
        now, totals = await measure()
        text = await run_in_threadpool(lambda: render(totals, stats.samples(models, now), expected()))
        return text.encode()

    @api.get("/stats", tags=["operation"], response_model=Stats, responses=error_responses())
    async def get_stats() -> Response:
        """Measure the whole server: bytes by part, what they replace, and the memory of its processes."""
        return await renderer.respond("stats", render_stats)

    @api.get(
        "/metrics",
        tags=["operation"],
        response_class=PlainTextResponse,
        responses=error_responses()
        | {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    )
    async def get_metrics() -> Response:
        """Count and measure the whole server, for Prometheus."""
        return await renderer.respond("metrics", render_metrics, CONTENT_TYPE)

    # As a response, which FastAPI does not validate: the requests are small.
    @api.get("/livez", tags=["health"], response_model=schema.Health)
    async def get_livez() -> Response:
        """Say that the process runs, whatever its load."""
        return json_response(_OK)

    unavailable = {503: error_responses()[503]}

    @api.get("/readyz", tags=["health"], response_model=schema.Health, responses=unavailable)
    @api.get("/health", tags=["health"], response_model=schema.Health, responses=unavailable)
    async def get_readyz() -> Response:
        """Say whether the server takes lookups: 503 as soon as a shutdown begins, or without a model."""
        if server.lifecycle.draining:
            raise Unavailable("the server is stopping; it finishes the requests that it has accepted")
        models.refresh()
        if not models.names():
            raise Unavailable("no model is loaded")
        return json_response(_OK)

    @api.get("/", include_in_schema=False)
    async def get_root(request: Request) -> Response:
        if server.config.dashboard and accepts_page(request):
            return PAGE.respond(request)
        state = "requires a key"
        if server.keys.accept(request.scope["headers"]):
            state = f"serves {', '.join(models.names()) or 'nothing'}"
        text = _WELCOME.format(version=smallfry.__version__, state=state)
        return PlainTextResponse(text, headers={"vary": "accept"})
