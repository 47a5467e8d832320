"""The routes that say what is served, send it, and change it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from service.errors import Conflict, InvalidValue
from service.http.auth import Keys
from service.http.limits import Limits
from service.http.negotiation import JSON, RAW
from service.http.request import media_type, parse_json, read_body
from service.models.model import Model
from service.models.registry import Models
from service.models.sources import NAME_RULE, SUFFIX, is_name, reason
from service.observability.metrics import Meter
from service.routes import schema
from service.routes.file import FileApp, etag, is_current
from service.routes.openapi import AsgiRoute, add_get, refusals
from service.routes.upload import store
from smallfry import SmallfryError

logger = logging.getLogger("smallfry.models")

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names is served"}}
_PUT_EXAMPLE = '{"path": "glove.sfq"}'
_PUT_CONTENT = {
    JSON: {
        "schema": {"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}},
        "example": {"path": "glove.sfq"},
    },
    RAW: _BINARY,
}


def add_catalog(api: FastAPI, models: Models, keys: Keys, meter: Meter, limits: Limits) -> None:
    """Add the routes under ``/models``."""

    async def list_models() -> schema.ModelList:
        """List the loaded vocabularies."""
        models.refresh()
        return schema.ModelList(models=[schema.ModelInfo(**model.describe()) for model in models.catalog()])

    add_get(api, "/models", list_models, tags=["models"], responses=refusals())

    async def get_model(name: str, request: Request, response: Response) -> BaseModel | Response:
        """Describe one vocabulary; its `ETag` changes with its content."""
        model = models.find(name)
        headers = {"etag": etag(model).decode(), "x-smallfry-digest": model.digest}
        if is_current(dict(request.scope["headers"]), model):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return schema.ModelInfo(**model.describe())

    add_get(
        api,
        "/models/{name}",
        get_model,
        tags=["models"],
        response_model=schema.ModelInfo,
        responses=refusals(404, 422) | _NOT_MODIFIED,
    )

    def get_file(name: str) -> None:
        """Send the `.sfq` file itself, whole or a `Range` of it."""

    file = FileApp(models)
    answers = {
        200: {"content": {RAW: _BINARY}, "description": "The file"},
        206: {"content": {RAW: _BINARY}, "description": "The range asked for"},
    }
    for method in ("GET", "HEAD"):
        route = AsgiRoute(
            "/models/{name}/file",
            file,
            get_file,
            methods=[method],
            tags=["models"],
            response_class=Response,
            responses=refusals(404, 416, 422) | answers | _NOT_MODIFIED,
            include_in_schema=method == "GET",
        )
        api.router.routes.append(route)

    @api.post("/models/{name}/reload", tags=["admin"], responses=refusals(403, 404, 409, 422))
    async def reload_model(name: str, request: Request) -> schema.ModelInfo:
        """Open a vocabulary's file anew; a broken one is refused and the old one is served on.

        Takes the admin key where the server has one.
        """
        if keys.has_admin:
            keys.check_admin(dict(request.scope["headers"]))
        old = models.find(name)
        new = await _open(models, meter, name, old.path)
        if not new.is_same(old):
            models.put(new)
        return schema.ModelInfo(**new.describe())

    @api.put(
        "/models/{name}",
        tags=["admin"],
        response_model=schema.ModelInfo,
        responses=refusals(400, 403, 408, 409, 413, 415, 422)
        | {201: {"model": schema.ModelInfo, "description": "Served under a new name"}},
        openapi_extra={"requestBody": {"content": _PUT_CONTENT, "required": True}},
    )
    async def put_model(name: str, request: Request, response: Response) -> schema.ModelInfo:
        """Serve a file of the server's folders under a name, or the `.sfq` file that is the body.

        The body replaces the file that was served under the name, or becomes `NAME.sfq` in the first folder.
        Takes the admin key.
        """
        headers = dict(request.scope["headers"])
        keys.check_admin(headers)
        if not is_name(name):
            raise InvalidValue(f"a model cannot be called {name!r}: {NAME_RULE}", param="name")
        if media_type(headers, (JSON, RAW)) == JSON:
            fields = parse_json(await read_body(request.receive, headers, limits), _PUT_EXAMPLE)
            path = fields.get("path")
            if not isinstance(path, str) or len(fields) != 1:
                raise InvalidValue(f"send a path alone, such as {_PUT_EXAMPLE}", param="path")
            model = await _open(models, meter, name, models.sources.inside(path))
        else:
            target = models[name].path if name in models else models.sources.folder() / f"{name}{SUFFIX}"
            with _refusing(meter, target):
                await store(request.receive, target, lambda path: models.open(name, path), limits.watch)
            model = await _open(models, meter, name, target)
        response.status_code = 200 if name in models else 201
        models.put(model)
        while model.replacement() is not None:
            # Another upload took the place of this one before it was served, and was served before it.
            model = await _open(models, meter, name, model.path)
            models.put(model)
        return schema.ModelInfo(**model.describe())

    @api.delete("/models/{name}", tags=["admin"], status_code=204, responses=refusals(403, 404, 422))
    async def delete_model(name: str, request: Request) -> None:
        """Serve a vocabulary no longer; its file stays. Takes the admin key."""
        keys.check_admin(dict(request.scope["headers"]))
        models.remove(name)


async def _open(models: Models, meter: Meter, name: str, path: Path) -> Model:
    with _refusing(meter, path):
        model = await run_in_threadpool(models.open, name, path)
    meter.count_reload(success=True)
    return model


@contextmanager
def _refusing(meter: Meter, path: Path) -> Iterator[None]:
    """Answer with a conflict where a file cannot be opened or written, without telling its path."""
    try:
        yield
    except (SmallfryError, OSError) as error:
        meter.count_reload(success=False)
        logger.error("%s is refused: %s", path, error)
        raise Conflict(f"the file of the model is refused: {reason(error)}") from None
