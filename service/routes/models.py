"""The routes under ``/models``: list, describe, download, upload, reload and remove models."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from starlette import responses
from starlette.requests import Request

from service.errors import (
    BodyTooLarge,
    Conflict,
    InvalidValue,
    RangeNotSatisfiable,
    RequestError,
    StorageFull,
    UnsupportedMediaType,
)
from service.http.request import RequestBody, media_type
from service.http.response import Response
from service.http.validation import parse_json
from service.models.model import Model
from service.models.sources import NAME_RULE, is_name, reason
from service.observability.metrics import Meter
from service.routes.formats import digest_header
from service.routes.openapi import Api, error_responses
from service.routes.renderer import Renderer
from service.routes.schema import ModelInfo, ModelList
from service.server import Server
from smallfry import SmallfryError
from smallfry.media_types import JSON, RAW
from smallfry.pages import sequential
from smallfry.sfq.atomic import replacing

logger = logging.getLogger("smallfry.models")

#: Bytes per chunk of a file that is sent.
_CHUNK = 1 << 18
_RANGE = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has the served content"}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {RAW: _BINARY}, "description": "The file"},
    206: {"content": {RAW: _BINARY}, "description": "The requested range"},
}
_PUT_EXAMPLE = '{"path": "glove.sfq"}'
#: Values in the JSON body of an upload, which needs one.
_MAX_PUT_VALUES = 1000
_HOW_TO_SEND = f"send a .sfq file itself as {RAW}, such as curl -T FILE does"
_PUT_CONTENT = {
    JSON: {
        "schema": {"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}},
        "example": {"path": "glove.sfq"},
    },
    RAW: _BINARY,
}


def add_routes(api: Api, server: Server) -> None:
    """Add the routes under ``/models``."""
    models, keys, meter, renderer = server.models, server.keys, server.meter, Renderer()
    loading = ThreadPoolExecutor(1, "models")

    async def load(name: str, path: Path) -> ModelInfo:
        with _conflicts(meter, path):
            model = await asyncio.get_running_loop().run_in_executor(loading, models.load, name, path)
        meter.count_reload(success=True)
        return ModelInfo(**model.describe())

    async def render_list() -> bytes:
        models.refresh()
        listed = ModelList(models=[ModelInfo(**model.describe()) for model in models.catalog()])
        return listed.model_dump_json().encode()

    @api.get("/models", tags=["models"], response_model=ModelList, responses=error_responses())
    async def list_models() -> responses.Response:
        """List the loaded models."""
        return await renderer.respond("models", render_list)

    @api.get(
        "/models/{name}",
        tags=["models"],
        response_model=ModelInfo,
        responses=error_responses(404, 422) | _NOT_MODIFIED,
    )
    async def get_model(
        name: str, request: Request, response: responses.Response
    ) -> ModelInfo | responses.Response:
        """Describe a model; its `ETag` changes with its content."""
        model = models.find(name)
        headers = {"etag": _etag(model).decode(), "x-smallfry-digest": model.digest}
        if _is_current(request, model):
            return responses.Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return ModelInfo(**model.describe())

    @api.get(
        "/models/{name}/file",
        tags=["models"],
        response_class=responses.Response,
        responses=error_responses(404, 416, 422) | _FILE | _NOT_MODIFIED,
    )
    async def get_file(name: str, request: Request) -> Response:
        """Send the `.sfq` file itself, whole or a `Range` of it."""
        return _file_response(models.find(name), request)

    @api.post("/models/{name}/reload", tags=["admin"], responses=error_responses(403, 404, 409, 422))
    async def reload_model(name: str, request: Request) -> ModelInfo:
        """Reload a model's file; if it is broken, the previous model stays.

        Takes the admin key if the server has one.
        """
        if keys.has_admin:
            keys.check_admin(request.scope["headers"])
        return await load(name, models.find(name).path)

    @api.put(
        "/models/{name}",
        tags=["admin"],
        response_model=ModelInfo,
        responses=error_responses(400, 403, 408, 409, 413, 415, 422, 507)
        | {201: {"model": ModelInfo, "description": "Served under a new name"}},
        openapi_extra={"requestBody": {"content": _PUT_CONTENT, "required": True}},
    )
    async def put_model(name: str, request: Request, response: responses.Response) -> ModelInfo:
        """Serve a file of the server's folders under a name, or the `.sfq` file in the body.

        The body, a `.sfq` file unless its content type is JSON, becomes `NAME.sfq` in the folder that has
        this file, or else in the first; no other file is replaced. Takes the admin key.
        """
        keys.check_admin(request.scope["headers"])
        if not is_name(name):
            raise InvalidValue(f"a model cannot be called {name!r}: {NAME_RULE}", param="name")
        headers = dict(request.scope["headers"])
        if b"content-range" in headers:
            raise RequestError("a part of a file cannot be stored; send it whole", param="Content-Range")
        body = RequestBody(request.receive, headers, server.limits)
        if (requested := await _requested_path(headers, body)) is not None:
            path = models.sources.inside(requested)
        else:
            path = await run_in_threadpool(models.upload, name)
            with _conflicts(meter, path):
                await _store(body, path, lambda file: models.open(name, file))
        response.status_code = 200 if name in models else 201
        return await load(name, path)

    @api.delete("/models/{name}", tags=["admin"], status_code=204, responses=error_responses(403, 404, 422))
    async def delete_model(name: str, request: Request) -> None:
        """Stop serving a model; its file stays. Takes the admin key."""
        keys.check_admin(request.scope["headers"])
        models.remove(name)


async def _requested_path(headers: Mapping[bytes, bytes], body: RequestBody) -> str | None:
    """Return the path in a JSON body; None if the body is the file itself.

    Raises
    ------
    UnsupportedMediaType, RequestError, BodyTooLarge, InvalidValue
        The body is neither; the message says how to send a file.
    """
    try:
        if media_type(headers, (RAW, JSON)) == RAW:
            return None
        fields = parse_json(await body.read(), _PUT_EXAMPLE, _MAX_PUT_VALUES)
    except (UnsupportedMediaType, RequestError) as error:
        raise type(error)(f"{error.message}; {_HOW_TO_SEND}", param=error.param) from None
    except BodyTooLarge:
        raise BodyTooLarge(f"the body is too large to be JSON with a path; {_HOW_TO_SEND}") from None
    path = fields.get("path")
    if not isinstance(path, str) or len(fields) != 1:
        raise InvalidValue(f"send only a path, such as {_PUT_EXAMPLE}; {_HOW_TO_SEND}", param="path")
    return path


@contextmanager
def _conflicts(meter: Meter, path: Path) -> Iterator[None]:
    """Raise `Conflict` or `StorageFull`, without the path, if a file cannot be opened or written."""
    try:
        yield
    except (SmallfryError, OSError) as error:
        meter.count_reload(success=False)
        logger.error("%s is rejected: %s", path, reason(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"the file of the model cannot be stored: {reason(error)}") from None
        raise Conflict(f"the file of the model is rejected: {reason(error)}") from None


async def _store(body: RequestBody, path: Path, check: Callable[[Path], object]) -> None:
    """Replace a file with the one in a request body, if it passes a check."""
    # A link in the folder is replaced: what it points to may be outside the folder.
    async with contextmanager_in_threadpool(replacing(path, check=check, follow_symlinks=False)) as file:
        async for chunk in body.stream():
            await run_in_threadpool(file.write, chunk)


def _file_response(model: Model, request: Request) -> Response:
    """Send the mapped file; one that replaces it meanwhile is not mixed in."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    tag = _etag(model)
    if _is_current(request, model):
        return Response([(b"etag", tag)], (), 0, 304)
    data = model.file.data.data
    requested = headers.get(b"range") if headers.get(b"if-range", tag) == tag else None
    span = byte_range(requested, len(data))
    start, end = (0, len(data)) if span is None else span
    fields = [
        (b"content-type", RAW.encode()),
        (b"accept-ranges", b"bytes"),
        (b"etag", tag),
        (b"content-disposition", f'attachment; filename="{quote(model.name)}.sfq"'.encode()),
        digest_header(model),
        (b"content-length", b"%d" % (end - start)),
    ]
    if span is not None:
        fields.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, len(data))))
    positions = range(start, end, _CHUNK) if request.method == "GET" else ()

    def chunks() -> Iterator[memoryview]:
        with sequential(model.file.data):
            for position in positions:
                yield data[position : min(position + _CHUNK, end)]

    return Response(fields, chunks(), end - start, 200 if span is None else 206)


def _etag(model: Model) -> bytes:
    return b'"%s"' % model.digest.encode()


def _is_current(request: Request, model: Model) -> bool:
    """Say whether ``If-None-Match`` names the served content."""
    header: bytes = dict(request.scope["headers"]).get(b"if-none-match", b"")
    tags = [tag.strip().removeprefix(b"W/") for tag in header.split(b",")]
    return _etag(model) in tags or b"*" in tags


def byte_range(header: bytes | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the one after the last, or None for the whole file.

    An invalid header, or one with several ranges, is ignored, as HTTP allows.

    Raises
    ------
    RangeNotSatisfiable
        The range begins after the end.
    """
    match = None if header is None else _RANGE.fullmatch(header.replace(b" ", b""))
    if match is None or match.group(1) == match.group(2) == b"":
        return None
    first, last = match.groups()
    if first == b"":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if last == b"" else min(int(last) + 1, size)
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(
            f"the range {match.group().decode()!r} is outside the file's {size} bytes",
            param="Range",
            headers=((b"content-range", b"bytes */%d" % size),),
        )
    return start, end
