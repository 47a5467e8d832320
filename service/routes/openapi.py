"""Routes that the documentation describes, and the errors with which they may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.errors import InvalidValue, MethodNotAllowed, NotFound, RequestError, ServiceError
from service.observability.metrics import Meter
from service.routes import schema

_ERROR = f"#/components/schemas/{schema.ErrorAnswer.__name__}"


class Api(FastAPI):
    """FastAPI that leaves what fails to whoever calls it: its own answer to that is a line of plain text."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return all layers but the outermost."""
        outermost = super().build_middleware_stack()
        assert isinstance(outermost, ServerErrorMiddleware)
        return outermost.app


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


def add_get(api: FastAPI, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401
    """Add a route for GET, and for HEAD, which is not worth a second place in the documentation."""
    api.add_api_route(path, endpoint, methods=["GET"], **options)
    api.add_api_route(path, endpoint, methods=["HEAD"], **options | {"include_in_schema": False})


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors with which a route may answer."""
    errors = {error.status: error for error in _subclasses(ServiceError)} | {500: ServiceError}
    return {
        status: {
            "model": schema.ErrorAnswer,
            "description": (errors[status].__doc__ or "").splitlines()[0],
            # Named too: a route whose own answers are no JSON would document these as it does those.
            "content": {"application/json": {"schema": {"$ref": _ERROR}}},
        }
        for status in sorted({*statuses, 401, 429, 500, 503, 504})
    }


def _subclasses(error: type[ServiceError]) -> Iterable[type[ServiceError]]:
    for subclass in error.__subclasses__():
        yield from _subclasses(subclass)
        yield subclass


def add_error_handlers(api: FastAPI, meter: Meter) -> None:
    """Answer refusals, the framework's own too, in the form that all others have, and count them."""

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        meter.reject(error.reason)
        return _answer(error)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _answer(RequestError(f"the body is not JSON: {first['ctx']['error']}"))
        place = ".".join(str(part) for part in first["loc"][1:])
        return _answer(InvalidValue(f"{place or 'the body'}: {first['msg']}", param=place or None))

    def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == MethodNotAllowed.status:
            allowed = ", ".join(sorted(_methods(api, path)))
            message = f"{path} does not answer {request.method}; it answers {allowed}"
            return _answer(MethodNotAllowed(message, headers=((b"allow", allowed.encode()),)))
        if error.status_code == NotFound.status:
            return _answer(NotFound(f"there is no route {path}; GET /docs lists them"))
        return _answer(RequestError(str(error.detail)))

    api.add_exception_handler(ServiceError, refused)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(HTTPException, no_route)


def _answer(error: ServiceError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return Response(error.body(), error.status, headers, "application/json")


def _methods(api: FastAPI, path: str) -> set[str]:
    return {
        method
        for route in api.routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    }
