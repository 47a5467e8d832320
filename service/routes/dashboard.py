"""The page for people: its files, and what it asks for beyond the routes that there are."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import smallfry.sfq.file
from service.errors import NotAcceptable, NotFound
from service.http.negotiation import negotiate
from service.models.model import Model
from service.models.registry import Models
from service.models.sources import reason
from service.observability.history import History
from service.observability.metrics import BUCKETS
from smallfry import SmallfryError
from smallfry.table import Table

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Nothing from elsewhere, nothing inline, no string becomes markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_SAMPLED_ROWS = 4096
_BINS = 64
#: Tables with at most this many values are shown value by value.
_LEVELS = 16


class File:
    """A file of the page, read once.

    Parameters
    ----------
    path : Path
        Where it is; its suffix decides its type.
    """

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._headers = {
            "content-type": _TYPES[path.suffix],
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
            "vary": "accept",
            "etag": f'"{hashlib.sha256(self._content).hexdigest()[:32]}"',
        }

    def answer(self, request: Request) -> Response:
        """Answer with the file, or without it where the client has it."""
        if request.headers.get("if-none-match") == self._headers["etag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


_FILES = {path.name: File(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
PAGE = _FILES["index.html"]
_REFERENCE = {
    name: _FILES[name] for name in ("reference.js", "reference.css", "page.css", "draw.js", "icon.svg")
}
#: Where the files are: they hold no data and need no key.
PATHS = tuple(f"/dashboard/{name}" for name in _FILES)
REFERENCE_PATHS = ("/docs", *(f"/docs/{name}" for name in _REFERENCE))


def accepts_page(request: Request) -> bool:
    """Say whether a client would rather have the page than plain text, as a browser does."""
    accept = request.headers.get("accept")
    try:
        best, *_ = negotiate(accept and accept.encode("latin-1"), ("text/plain", "text/html"))
    except NotAcceptable:
        return False
    return best == "text/html"


def add_reference(api: FastAPI) -> None:
    """Add ``/docs``: the interface for people, of which nothing comes from elsewhere."""

    async def get_page(request: Request) -> Response:
        return _FILES["reference.html"].answer(request)

    async def get_file(file: str, request: Request) -> Response:
        if file not in _REFERENCE:
            raise NotFound(f"the documentation has no file {file!r}")
        return _REFERENCE[file].answer(request)

    api.add_api_route("/docs", get_page, methods=["GET", "HEAD"], include_in_schema=False)
    api.add_api_route("/docs/{file}", get_file, methods=["GET", "HEAD"], include_in_schema=False)


def add_dashboard(api: FastAPI, models: Models, traffic: History) -> None:
    """Add the routes under ``/dashboard``."""
    distributions: WeakKeyDictionary[Model, dict[str, Any]] = WeakKeyDictionary()

    @api.api_route("/dashboard/models", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_models() -> Response:
        models.refresh()
        served = list(models.values())
        return JSONResponse({"models": await run_in_threadpool(lambda: [*map(describe, served)])})

    @api.api_route("/dashboard/traffic", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_traffic(history: bool = False) -> Response:
        samples = traffic.history() if history else []
        return JSONResponse({"bounds": BUCKETS, "samples": samples, "now": traffic.now()})

    @api.api_route("/dashboard/{file}", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_file(file: str, request: Request) -> Response:
        if file not in _FILES:
            raise NotFound(f"the dashboard has no file {file!r}")
        return _FILES[file].answer(request)

    def describe(model: Model) -> dict[str, Any]:
        if model not in distributions:
            distributions[model] = distribution(model.store.table)
        return model.describe() | {
            "loaded_at": model.loaded_at,
            "load_seconds": model.load_seconds,
            "file": file_state(model),
            "distribution": distributions[model],
        }


def distribution(table: Table) -> dict[str, Any]:
    """Count the values of a table, of at most 4,096 of its rows, evenly spaced, without those of zeros.

    Returns
    -------
    dict
        ``values``: the values where there are few, otherwise the middles of bins of equal width; ``shares``:
        how many of all are there, from 0 to 1; ``rows``: how many rows were counted. The values are those of
        the codebook: the clip is theirs, and row scales and the mean come after it.
    """
    step = -(-table.rows // _SAMPLED_ROWS)
    ids = np.setdiff1d(np.arange(0, table.rows, step), table.zero_rows)
    decoded = replace(table, mean=None, row_scale=None).decode(ids, threads=1)
    values, counts = np.unique(decoded, return_counts=True)
    if len(values) > _LEVELS:
        bound = float(np.abs(decoded).max())
        counts, edges = np.histogram(decoded, _BINS, (-bound, bound))
        values = (edges[:-1] + edges[1:]) / 2
    shares = counts / max(1, decoded.size)
    return {"values": values.tolist(), "shares": shares.tolist(), "rows": len(ids)}


def file_state(model: Model) -> dict[str, str]:
    """Compare a model with its file as it is now: ``served``, ``changed``, or ``broken`` and why."""
    try:
        digest = smallfry.sfq.file.map(model.path).header.digest
    except (SmallfryError, OSError) as error:
        return {"state": "broken", "message": reason(error)}
    return {"state": "served" if digest == model.digest else "changed", "message": ""}
