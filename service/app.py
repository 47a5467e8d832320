"""The application: every route, its documentation, and the gate before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import smallfry
from service import examples, schema, stats
from service.config import Config
from service.errors import InvalidValue, MethodNotAllowed, NotFound, RequestError, ServiceError
from service.gate import Gate
from service.lookup import LookupApp
from service.models import Models

LOOKUP_PATHS = ("/lookup", "/v1/lookup")

_WELCOME = """smallfry {version} serves {models}

POST /lookup   {{"tokens": ["the", "cat"]}} to vectors
GET  /models   what is loaded
GET  /stats    what it takes
GET  /docs     everything else
"""


class AsgiRoute(APIRoute):
    """A route described by a function's signature and answered by a plain ASGI application."""

    def __init__(
        self,
        path: str,
        application: ASGIApp,
        described: Callable[..., Any],
        **options: Any,  # noqa: ANN401 - those of APIRoute
    ) -> None:
        super().__init__(path, described, **options)
        self.app = application


def create_app(config: Config, models: Models, pids: Callable[[], Iterable[int]]) -> ASGIApp:
    """Return the server's ASGI application.

    Parameters
    ----------
    config : Config
        The options of the server.
    models : Models
        What it serves, open.
    pids : callable
        Returns the processes of the server.
    """
    api = FastAPI(
        title="smallfry",
        summary="Embedding tables at 1 to 16 bits a value.",
        description=examples.DESCRIPTION,
        version=smallfry.__version__,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    lookup = LookupApp(
        models, max_tokens=config.max_batch_tokens, max_body=config.max_body, timeout=config.request_timeout
    )
    _add_lookup(api, lookup, models)
    _add_models(api, models)
    _add_stats(api, config, models, pids)
    _add_health(api, models)
    _add_errors(api)
    return Gate(api, dict.fromkeys(LOOKUP_PATHS, lookup))


def _add_lookup(api: FastAPI, lookup: LookupApp, models: Models) -> None:
    def look_up(request: schema.LookupRequest) -> None:
        """Look up tokens or row numbers; `Accept` chooses the format of the answer."""

    for path in LOOKUP_PATHS:
        route = AsgiRoute(
            path,
            lookup,
            look_up,
            methods=["POST"],
            tags=["lookup"],
            response_model=schema.LookupAnswer,
            responses=refusals(400, 404, 406, 408, 413, 415, 422)
            | {200: {"content": examples.lookup_answer(models, lookup), "description": "The vectors"}},
            openapi_extra={"requestBody": {"content": examples.lookup_request(models), "required": True}},
        )
        api.router.routes.append(route)


def _add_models(api: FastAPI, models: Models) -> None:
    @api.get("/models", tags=["models"])
    async def list_models() -> schema.ModelList:
        """List the loaded vocabularies."""
        return schema.ModelList(models=[schema.ModelInfo(**model.describe()) for model in models.values()])


def _add_stats(api: FastAPI, config: Config, models: Models, pids: Callable[[], Iterable[int]]) -> None:
    started = monotonic()

    @api.get("/stats", tags=["operation"])
    async def get_stats() -> schema.Stats:
        """Measure the whole server: bytes by part, what they replace, and the memory of its processes."""
        return schema.Stats(
            version=smallfry.__version__,
            workers=config.workers,
            uptime_seconds=monotonic() - started,
            memory=stats.memory(pids()),
            models=[stats.model_bytes(model) for model in models.values()],
        )


def _add_health(api: FastAPI, models: Models) -> None:
    @api.api_route("/livez", methods=["GET", "HEAD"], tags=["health"])
    async def live() -> schema.Health:
        """Say that the process runs, whatever its load."""
        return schema.Health(status="ok")

    for path in ("/readyz", "/health"):

        @api.api_route(path, methods=["GET", "HEAD"], tags=["health"])
        async def ready() -> schema.Health:
            """Say that lookups are answered."""
            return schema.Health(status="ok")

    @api.get("/", include_in_schema=False)
    async def welcome() -> Response:
        names = ", ".join(models)
        return PlainTextResponse(_WELCOME.format(version=smallfry.__version__, models=names))


def _add_errors(api: FastAPI) -> None:
    """Answer the framework's own refusals in the form that all others have."""

    def answer(error: ServiceError) -> Response:
        headers = {name.decode(): value.decode() for name, value in error.headers}
        return JSONResponse(error.content(), error.status, headers)

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return answer(error)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        if first["type"] == "json_invalid":
            return answer(RequestError(f"the body is not JSON: {first['ctx']['error']}"))
        return answer(InvalidValue(f"{place or 'the body'}: {first['msg']}", param=place or None))

    def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == MethodNotAllowed.status:
            allowed = ", ".join(sorted(_methods(api, path)))
            return answer(
                MethodNotAllowed(
                    f"{path} does not answer {request.method}; it answers {allowed}",
                    headers=((b"allow", allowed.encode()),),
                )
            )
        if error.status_code == NotFound.status:
            return answer(NotFound(f"there is no route {path}; GET /docs lists them"))
        return answer(RequestError(str(error.detail)))

    api.add_exception_handler(ServiceError, refused)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(HTTPException, no_route)


def _methods(api: FastAPI, path: str) -> set[str]:
    return {
        method
        for route in api.routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    }


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors with which a route may answer."""
    errors = {error.status: error for error in _subclasses(ServiceError)}
    return {
        status: {"model": schema.ErrorAnswer, "description": (errors[status].__doc__ or "").splitlines()[0]}
        for status in statuses
    }


def _subclasses(error: type[ServiceError]) -> Iterable[type[ServiceError]]:
    for subclass in error.__subclasses__():
        yield from _subclasses(subclass)
        yield subclass
