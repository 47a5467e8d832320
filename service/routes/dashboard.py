"""Dashboard and API reference: static files, and the JSON endpoints behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

import smallfry.sfq.file
from service.errors import NotAcceptable, NotFound
from service.http.request import negotiate
from service.http.response import Response
from service.models.examples import TEXTS
from service.models.model import Model
from service.models.sources import reason
from service.observability.metrics import BUCKETS
from service.routes.openapi import Api
from service.routes.renderer import Renderer
from service.server import Server
from smallfry import SmallfryError
from smallfry.table import Table

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: No external or inline resources; no string becomes markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
#: Rows and values of a table that are counted at most.
_SAMPLED_ROWS, _SAMPLED_VALUES = 1024, 1 << 18
_BINS = 64
#: Tables with at most this many distinct values are shown value by value.
_LEVELS = 16
#: Row numbers that are shown as examples of a model without a vocabulary.
_EXAMPLES = 3


class File:
    """A static file, read once; the suffix of its path decides its type."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'
        self._headers = [
            (b"content-type", _TYPES[path.suffix].encode()),
            (b"content-security-policy", _POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"),
            (b"vary", b"accept"),
            (b"etag", self._tag.encode()),
        ]

    def respond(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it."""
        if request.headers.get("if-none-match") == self._tag:
            return Response(self._headers.copy(), (), 0, 304)
        length = len(self._content)
        headers = [*self._headers, (b"content-length", b"%d" % length)]
        return Response(headers, (self._content,), length)


_FILES = {path.name: File(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
PAGE = _FILES["index.html"]
_REFERENCE = {
    name: _FILES[name] for name in ("reference.js", "reference.css", "page.css", "draw.js", "icon.svg")
}
#: Paths of the files, which hold no data and need no key.
PATHS = tuple(f"/dashboard/{name}" for name in _FILES)
REFERENCE_PATHS = ("/docs", *(f"/docs/{name}" for name in _REFERENCE))


def accepts_page(request: Request) -> bool:
    """Say whether a client prefers HTML to plain text, as browsers do."""
    accept = request.headers.get("accept")
    try:
        best, *_ = negotiate(accept.encode("latin-1") if accept else None, ("text/plain", "text/html"))
    except NotAcceptable:
        return False
    return best == "text/html"


def add_reference(api: Api) -> None:
    """Add ``/docs``, the API reference: 73 KB, where swagger-ui is 1.9 MB and fails under `_POLICY`."""

    @api.get("/docs", include_in_schema=False)
    async def get_page(request: Request) -> Response:
        return _FILES["reference.html"].respond(request)

    @api.get("/docs/{file}", include_in_schema=False)
    async def get_file(file: str, request: Request) -> Response:
        if file not in _REFERENCE:
            raise NotFound(f"the documentation has no file {file!r}")
        return _REFERENCE[file].respond(request)


def add_routes(api: Api, server: Server) -> None:
    """Add the routes under ``/dashboard``."""
    models, recorded, devices, renderer = server.models, server.history, server.devices, Renderer()

    async def respond(key: Hashable, content: Callable[[], dict[str, Any]]) -> Response:
        async def render() -> bytes:
            return await run_in_threadpool(lambda: orjson.dumps(content()))

        return await renderer.respond(key, render)

    @api.get("/dashboard/models", include_in_schema=False)
    async def list_models() -> Response:
        def content() -> dict[str, Any]:
            models.refresh()
            return {"models": [*map(summarize, models.values())]}

        return await respond("models", content)

    @api.get("/dashboard/models/{name}", include_in_schema=False)
    async def get_model(name: str) -> Response:
        model = models.find(name)
        return await respond(model, lambda: describe_in_detail(model) | {"device": devices.device_of(model)})

    @api.get("/dashboard/traffic", include_in_schema=False)
    async def get_traffic(history: bool = False) -> Response:
        def content() -> dict[str, Any]:
            samples = recorded.samples() if history else []
            return {"bounds": BUCKETS, "samples": samples, "now": recorded.now()}

        return await respond(history, content)

    @api.get("/dashboard/{file}", include_in_schema=False)
    async def get_file(file: str, request: Request) -> Response:
        if file not in _FILES:
            raise NotFound(f"the dashboard has no file {file!r}")
        return _FILES[file].respond(request)


def summarize(model: Model) -> dict[str, Any]:
    """Return one row of the table of models; it reads no rows of the model."""
    store = model.store
    return store.describe_size() | {
        "name": model.name,
        "digest": model.digest,
        "bytes": store.nbytes["total"],
        "codebook_kind": store.table.codebook_kind,
        "frobenius_error": float(store.table.frobenius_error),
        "file": file_state(model),
    }


def describe_in_detail(model: Model) -> dict[str, Any]:
    """Return all that the dashboard shows of one model."""
    store, counted = model.store, model.derived.get(Distribution)
    if counted is None:
        counted = model.derived[Distribution] = distribution(store.table)
    return (
        model.describe()
        | store.describe_size()
        | {
            "loaded_at": model.loaded_at,
            "load_seconds": model.load_seconds,
            "file": file_state(model),
            "distribution": counted._asdict(),
            "examples": _examples(model),
        }
    )


def _examples(model: Model) -> list[str]:
    """Return what the form shows first: texts, tokens or row numbers."""
    if model.store.has_tokenizer:
        return list(TEXTS)
    if model.store.vocabulary is not None:
        return model.examples
    return [*map(str, range(min(_EXAMPLES, len(model.store))))]


class Distribution(NamedTuple):
    """The distinct values of a table, or centers of bins of equal width, and their relative frequencies."""

    values: list[float]
    shares: list[float]
    rows: int
    """Number of rows counted."""


def distribution(table: Table) -> Distribution:
    """Count the values of at most 1,024 rows and 262,144 values, evenly spaced, without zero rows.

    The values are those of the codebook, times column scales, before row scales and the mean. NaN and
    infinity, which a damaged table can have, are left out.
    """
    step = -(-table.rows // max(1, min(_SAMPLED_ROWS, _SAMPLED_VALUES // table.dim)))
    sample = table.select(np.arange(0, table.rows, step))
    ids = np.setdiff1d(np.arange(sample.rows), sample.zero_rows)
    decoded = replace(sample, mean=None, row_scale=None).decode(ids, threads=1)
    decoded = decoded[np.isfinite(decoded)].astype(np.float64)  # bounds of bins can exceed float32
    values, counts = np.unique(decoded, return_counts=True)
    if len(values) > _LEVELS:
        bound = float(np.abs(decoded).max())
        counts, edges = np.histogram(decoded, _BINS, (-bound, bound))
        values = (edges[:-1] + edges[1:]) / 2
    return Distribution(values.tolist(), (counts / max(1, decoded.size)).tolist(), len(ids))


def file_state(model: Model) -> dict[str, str]:
    """Compare a model with its file on disk: ``served``, ``changed``, or ``broken`` with the reason."""
    if model.path.exists() and model.replacement() is None:
        return {"state": "served", "message": ""}
    try:
        digest = smallfry.sfq.file.map(model.path).header.digest
    except (SmallfryError, OSError) as error:
        return {"state": "broken", "message": reason(error)}
    return {"state": "served" if digest == model.digest else "changed", "message": ""}
