"""The routes by which the server is operated: health, figures, a welcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import smallfry
from service.errors import Unavailable
from service.gpu.placement import DeviceManager
from service.lifecycle import Lifecycle
from service.models.registry import Models
from service.observability import stats
from service.observability.metrics import CONTENT_TYPE, render
from service.routes import schema
from service.routes.dashboard import File, accepts_page
from service.routes.openapi import add_get, refusals
from service.scoreboard import Scoreboard

#: Takes a server's own report; returns that of all that answer as one.
Gather = Callable[[stats.Report], Awaitable[stats.Report]]

_WELCOME = """smallfry {version} serves {models}

POST /lookup   {{"tokens": ["the", "cat"]}} to vectors
GET  /models   what is loaded
GET  /stats    what it takes
GET  /docs     everything else
"""


def add_operation(
    api: FastAPI,
    models: Models,
    placement: DeviceManager,
    scoreboard: Scoreboard,
    lifecycle: Lifecycle,
    *,
    page: File | None,
    gather: Gather | None = None,
) -> None:
    """Add ``/stats``, ``/metrics``, the routes of health, and ``/``, which answers browsers with a page.

    Where this server is one of several that answer as one, `gather` asks all of them for their reports.
    """
    started = monotonic()

    async def measure() -> stats.Report:
        # The kernel walks the page tables of all processes for it: milliseconds for each GB that is mapped.
        own = await run_in_threadpool(stats.read, models, placement, scoreboard, monotonic() - started)
        return own if gather is None else await gather(own)

    async def get_stats() -> stats.Stats:
        """Measure the whole server: bytes by part, what they replace, and the memory of its processes."""
        return (await measure()).stats

    add_get(api, "/stats", get_stats, tags=["operation"], responses=refusals())

    async def get_metrics() -> Response:
        """Count and measure the whole server, for Prometheus."""
        now, totals = await measure()
        text = render(totals, stats.samples(models, now))
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    add_get(
        api,
        "/metrics",
        get_metrics,
        tags=["operation"],
        response_class=PlainTextResponse,
        responses=refusals()
        | {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    )

    async def get_livez() -> schema.Health:
        """Say that the process runs, whatever its load."""
        return schema.Health(status="ok")

    async def get_readyz() -> schema.Health:
        """Say whether lookups are answered: 503 as soon as the server is told to stop."""
        if lifecycle.draining:
            raise Unavailable("the server is stopping; it answers what it has accepted")
        models.refresh()
        if not models.names():
            raise Unavailable("no model is loaded")
        return schema.Health(status="ok")

    add_get(api, "/livez", get_livez, tags=["health"])
    for path in ("/readyz", "/health"):
        add_get(api, path, get_readyz, tags=["health"], responses=refusals())

    async def get_root(request: Request) -> Response:
        if page is not None and accepts_page(request):
            return page.answer(request)
        names = ", ".join(models.names()) or "nothing"
        text = _WELCOME.format(version=smallfry.__version__, models=names)
        return PlainTextResponse(text, headers={"vary": "accept"})

    add_get(api, "/", get_root, include_in_schema=False)
