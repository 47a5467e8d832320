"""The application: every route, and the gate before them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

import smallfry
from service.config import Config
from service.gpu.placement import DeviceManager
from service.http.auth import Keys
from service.http.body_timeout import BodyTimeout
from service.http.limits import ConcurrencyLimiter, Limits
from service.http.middleware import RequestMiddleware
from service.lifecycle import Lifecycle
from service.models.registry import Models
from service.observability.history import History
from service.observability.metrics import Meter
from service.routes import examples, schema
from service.routes.dashboard import PAGE, add_dashboard, add_reference
from service.routes.embeddings import EmbeddingsEndpoint
from service.routes.health import Gather, add_operation
from service.routes.lookup import LookupEndpoint
from service.routes.models import add_catalog
from service.routes.neighbors import NeighborsEndpoint
from service.routes.openapi import Api, AsgiRoute, add_error_handlers, refusals
from service.scoreboard import Scoreboard

LOOKUP_PATHS = ("/lookup", "/v1/lookup")
EMBEDDINGS_PATH = "/v1/embeddings"
NEIGHBORS_PATH = "/neighbors"

_EXPOSED = ("x-request-id", "server-timing", "x-smallfry-digest", "x-smallfry-shape", "x-smallfry-dtype")


def create_app(
    config: Config,
    models: Models,
    placement: DeviceManager,
    scoreboard: Scoreboard,
    meter: Meter,
    traffic: History,
    keys: Keys,
    lifecycle: Lifecycle,
    gather: Gather | None = None,
) -> ASGIApp:
    """Return one worker's ASGI application.

    Parameters
    ----------
    config : Config
        The options of the server.
    models : Models
        What it serves, open.
    placement : DeviceManager
        Which of that lies on a device.
    scoreboard : Scoreboard
        What the server's processes share.
    meter : Meter
        This worker's counters.
    traffic : History
        The last minutes of all workers' counters.
    keys : Keys
        Who may ask.
    lifecycle : Lifecycle
        Says when the process is ending.
    gather : callable, optional
        Where several servers answer as one: makes one report of theirs.
    """
    api = Api(
        title="smallfry",
        summary="Embedding tables at 1 to 16 bits a value.",
        description=examples.DESCRIPTION,
        version=smallfry.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    limits = Limits(config.max_batch_tokens, config.max_body, BodyTimeout(config.request_timeout))
    lookup = LookupEndpoint(models, placement, meter, limits)
    embeddings = EmbeddingsEndpoint(models, placement, meter, limits)
    neighbors = NeighborsEndpoint(models, limits)
    _add_lookup(api, lookup, models)
    _add_embeddings(api, embeddings, models)
    _add_neighbors(api, neighbors, models)
    add_catalog(api, models, keys, meter, limits)
    page = PAGE if config.dashboard else None
    add_operation(api, models, placement, scoreboard, lifecycle, page=page, gather=gather)
    if config.dashboard:
        add_dashboard(api, models, traffic)
    add_reference(api)
    add_error_handlers(api, meter)
    gate = RequestMiddleware(
        api,
        {**dict.fromkeys(LOOKUP_PATHS, lookup), EMBEDDINGS_PATH: embeddings, NEIGHBORS_PATH: neighbors},
        keys=keys,
        admission=ConcurrencyLimiter(
            config.max_concurrent_requests, config.max_queue, config.request_timeout, meter
        ),
        limits=limits,
        meter=meter,
        lifecycle=lifecycle,
        access_log=config.access_log,
    )
    if not config.cors_origin:
        return gate
    return CORSMiddleware(
        gate,
        allow_origins=config.cors_origin,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("authorization", "content-type", "x-api-key", "x-request-id"),
        expose_headers=_EXPOSED,
    )


def _add_lookup(api: FastAPI, lookup: LookupEndpoint, models: Models) -> None:
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
            | {200: {"content": examples.lookup_answer(models), "description": "The vectors"}},
            openapi_extra={"requestBody": {"content": examples.lookup_request(models), "required": True}},
        )
        api.router.routes.append(route)


def _add_embeddings(api: FastAPI, embeddings: EmbeddingsEndpoint, models: Models) -> None:
    def embed(request: schema.EmbeddingsRequest) -> None:
        """Embed texts in OpenAI's form: each is the mean of the vectors of its words.

        A text is split into words and punctuation marks; each is looked up as written and, if unknown so, in
        lower case; unknown ones are left out. A text without known words gets zeros.
        """

    route = AsgiRoute(
        EMBEDDINGS_PATH,
        embeddings,
        embed,
        methods=["POST"],
        tags=["lookup"],
        response_model=schema.EmbeddingsAnswer,
        responses=refusals(400, 404, 406, 408, 413, 415, 422),
        openapi_extra={"requestBody": {"content": examples.embeddings_request(models)}},
    )
    api.router.routes.append(route)


def _add_neighbors(api: FastAPI, neighbors: NeighborsEndpoint, models: Models) -> None:
    def find_neighbors(request: schema.NeighborsRequest) -> None:
        """Find the rows nearest to a token, a row or a vector, by cosine: exactly, among all rows."""

    route = AsgiRoute(
        NEIGHBORS_PATH,
        neighbors,
        find_neighbors,
        methods=["POST"],
        tags=["lookup"],
        response_model=schema.NeighborsAnswer,
        responses=refusals(400, 404, 406, 408, 413, 415, 422),
        openapi_extra={"requestBody": {"content": examples.neighbors_request(models), "required": True}},
    )
    api.router.routes.append(route)
