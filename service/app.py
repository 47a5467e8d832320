"""The application factory."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.http.request import RootPath
from service.middleware import RequestMiddleware
from service.routes import dashboard, health, models, openai_models
from service.routes.embeddings import EmbeddingsEndpoint
from service.routes.lookup import LookupEndpoint
from service.routes.neighbors import NeighborsEndpoint
from service.routes.openapi import Api, add_endpoints
from service.server import Server

#: Response headers that scripts from other origins may read.
_EXPOSED = (
    *("x-request-id", "server-timing", "x-smallfry-digest", "x-smallfry-shape", "x-smallfry-dtype"),
    *("retry-after", "etag", "accept-ranges", "content-range", "content-disposition"),
)


def create_app(server: Server) -> ASGIApp:
    """Return the ASGI application of one serving process."""
    config, api = server.config, Api(server.meter, server.keys)
    lookup = LookupEndpoint(server)
    endpoints = {
        "/lookup": lookup,
        "/v1/lookup": lookup,
        "/v1/embeddings": EmbeddingsEndpoint(server),
        "/neighbors": NeighborsEndpoint(server),
    }
    # First, as the router tries the routes in order, and these need no key.
    dashboard.add_reference(api)
    add_endpoints(api, endpoints)
    models.add_routes(api, server)
    openai_models.add_routes(api, server)
    health.add_routes(api, server)
    if config.dashboard:
        dashboard.add_routes(api, server)
    public = (*dashboard.PATHS, *dashboard.REFERENCE_PATHS)
    cors = None
    if config.cors_origin:
        cors = CORSMiddleware(
            api,
            allow_origins=config.cors_origin,
            allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    app: ASGIApp = RequestMiddleware(api, endpoints, server, public, cors)
    if config.root_path:
        app = RootPath(app, config.root_path)
    return app
