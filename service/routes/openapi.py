"""The router: route registration, the API description, and error responses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette import responses
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

import smallfry
from service.errors import InvalidValue, MethodNotAllowed, NotFound, RequestError, ServiceError
from service.http.auth import Keys
from service.http.request import route_path
from service.http.response import Response, error_response
from service.observability.metrics import Meter
from service.routes import schema
from service.routes.endpoint import Endpoint
from service.routes.renderer import Renderer
from smallfry.media_types import JSON

F = TypeVar("F", bound=Callable[..., Any])

_DESCRIPTION = """
Compressed embedding tables, looked up by token or row number; models with a tokenizer encode texts.

One request takes many tokens: a batch of a thousand costs little more than one of a single token.
`Accept` chooses between JSON, raw float32 (`application/octet-stream`), safetensors
(`application/vnd.safetensors`) and the packed codes themselves (`application/vnd.smallfry.packed`);
all four give the same values, bit for bit.
"""
#: Errors of every route.
_COMMON = (401, 403, 429, 431, 500, 503, 504)
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or the admin key."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same keys."},
}
_SCHEMAS = "#/components/schemas/"


class Api(FastAPI):
    """The router.

    Parameters
    ----------
    meter : Meter
        Counts rejected requests.
    keys : Keys
        The description says which routes need them.
    """

    def __init__(self, meter: Meter, keys: Keys) -> None:
        super().__init__(
            title="smallfry",
            summary="Embedding tables at 1 to 16 bits a value.",
            description=_DESCRIPTION,
            version=smallfry.__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # Its spans would be second ones.
            telemetry={"tracing": False, "metrics": False, "logs": False},
        )
        self._meter = meter
        self._keys = keys
        self._document: bytes | None = None
        self._renderer = Renderer()
        self.add_route("/openapi.json", self._get_document, include_in_schema=False)
        self.add_exception_handler(ServiceError, self._rejected)
        self.add_exception_handler(RequestValidationError, self._invalid)
        self.add_exception_handler(HTTPException, self._unrouted)

    def build_middleware_stack(self) -> ASGIApp:
        """Return all layers but the outermost: `RequestMiddleware` turns unexpected errors into responses."""
        outermost = super().build_middleware_stack()
        assert isinstance(outermost, ServerErrorMiddleware)
        return outermost.app

    def openapi(self) -> dict[str, Any]:
        """Return the description, with the keys that each route requires."""
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        error = schema.ErrorResponse.model_json_schema(ref_template=_SCHEMAS + "{model}")
        document["components"]["schemas"] |= error.pop("$defs") | {schema.ErrorResponse.__name__: error}
        if self._keys.required or self._keys.has_admin:
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            for methods in document["paths"].values():
                for operation in methods.values():
                    operation["security"] = self._security(operation.get("tags", ()))
        return document

    async def _get_document(self, request: Request) -> responses.Response:
        """Return the description; it is rendered once, for the prefix of the first request."""
        if self._document is None:
            self._document = await self._renderer.share(
                "document", partial(run_in_threadpool, self._render, request.scope.get("root_path", ""))
            )
        return responses.Response(self._document, media_type=JSON)

    def _render(self, prefix: str) -> bytes:
        servers = {"servers": [{"url": prefix}]} if prefix else {}
        return orjson.dumps(self.openapi() | servers)

    def _security(self, tags: Sequence[str]) -> list[dict[str, list[str]]]:
        if "health" in tags:
            return []
        if "admin" in tags and self._keys.has_admin:
            return [{scheme: ["admin"]} for scheme in _SECURITY_SCHEMES]
        return [{scheme: []} for scheme in _SECURITY_SCHEMES] if self._keys.required else []

    def get(self, path: str, **options: Any) -> Callable[[F], F]:  # noqa: ANN401
        """Register a function for GET, and for HEAD without a second entry in the description."""

        def register(function: F) -> F:
            self.add_api_route(path, function, methods=["GET"], **options)
            self.add_api_route(path, function, methods=["HEAD"], **options | {"include_in_schema": False})
            return function

        return register

    def responses(self) -> set[tuple[str, str]]:
        """Return the route and status of each response that is described, or common to all routes."""
        return {
            (route.path, str(status))
            for route in self.routes
            if isinstance(route, Route)
            for status in (
                getattr(route, "status_code", None) or 200,
                *getattr(route, "responses", ()),
                *(405, 499, *_COMMON),
            )
        }

    def _rejected(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        self._meter.reject(error.reason)
        return error_response(error)

    def _invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return error_response(RequestError(f"the body is not JSON: {first['ctx']['error']}"))
        name = ".".join(str(part) for part in first["loc"][1:])
        return error_response(InvalidValue(f"{name or 'the body'}: {first['msg']}", param=name or None))

    def _unrouted(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = route_path(request.scope)
        if error.status_code == MethodNotAllowed.status:
            allowed = ", ".join(sorted(self._methods(path)))
            message = f"{path} does not take {request.method}; it takes {allowed}"
            return error_response(MethodNotAllowed(message, headers=((b"allow", allowed.encode()),)))
        if error.status_code == NotFound.status:
            return error_response(NotFound(f"there is no route {path}; GET /docs lists them"))
        return error_response(RequestError(str(error.detail)))

    def _methods(self, path: str) -> set[str]:
        return {
            method
            for route in self.routes
            if isinstance(route, Route) and route.path_regex.match(path)
            for method in route.methods or ()
        }


def add_endpoints(api: Api, endpoints: Mapping[str, Endpoint]) -> None:
    """Describe the endpoints and reject methods other than POST, which the middleware serves itself."""
    for path, endpoint in endpoints.items():
        # The router passes on only what it takes for this path and the middleware does not: "/lookup\n".
        async def unknown_path(request: Any) -> None:  # noqa: ANN401 - set below
            raise HTTPException(404)

        unknown_path.__annotations__["request"] = endpoint.request_model
        responses = error_responses(400, 404, 406, 408, 413, 415, 422)
        if content := endpoint.response_content():
            responses[200] = {"content": content, "description": "The vectors"}
        api.add_api_route(
            path,
            unknown_path,
            name=endpoint.name,
            methods=["POST"],
            tags=["lookup"],
            description=inspect.getdoc(endpoint.respond),
            response_model=endpoint.response_model,
            responses=responses,
            openapi_extra={"requestBody": {"content": endpoint.request_content(), "required": True}},
        )


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the errors of a route: those given, and those of every route."""
    errors = {error.status: error for error in _subclasses(ServiceError)} | {500: ServiceError}
    return {
        status: {
            "description": (errors[status].__doc__ or "").splitlines()[0],
            # Not a "model": each would take time at the start of a server.
            "content": {"application/json": {"schema": {"$ref": _SCHEMAS + schema.ErrorResponse.__name__}}},
        }
        for status in sorted({*statuses, *_COMMON})
    }


def _subclasses(error: type[ServiceError]) -> Iterable[type[ServiceError]]:
    for subclass in error.__subclasses__():
        yield from _subclasses(subclass)
        yield subclass
