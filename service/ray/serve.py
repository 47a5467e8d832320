"""The server on Ray Serve: the same application, in replicas on many machines.

    serve run service.ray.serve:app embeddings=/models/glove.sfq

Needs the extra ``ray``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import smallfry
from service.app import create_app
from service.config import PREFIX, Config, load, options
from service.errors import ConfigError, NotAllowed, ServiceError, Unavailable
from service.http.auth import Keys
from service.http.request import route_path
from service.http.response import error_response
from service.models.registry import Models
from service.observability import stats
from service.process.malloc_trim import MallocTrimmer
from service.ray.model_id import requested_model
from service.ray.multiplexing import Lease, ModelCache
from service.ray.proxy import MULTIPLEXED
from service.ray.sources import RemoteSources
from service.scoreboard import Scoreboard
from service.server import Server
from smallfry import SmallfryError
from smallfry.download import is_url

logger = logging.getLogger("smallfry.server")

#: Seconds between two runs of the periodic tasks.
_TICK = 1.0
#: Periodic runs between two attempts to download models that no server could send.
_TICKS_PER_RETRY = 30
_GATHER_TIMEOUT = 5.0
#: Arguments of the application that are not options of ``smallfry-serve``.
_OWN = ("cache", "models_per_replica")
#: Options that Serve has itself, or that do not apply to many replicas.
_EXCLUDED = frozenset(
    (
        *("host", "port", "uds", "uds_mode", "root_path", "forwarded_allow_ips", "keep_alive_timeout"),
        *("workers", "drain_delay", "shutdown_timeout", "dashboard", "admin_key_file", "admin_key"),
        *("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    )
)


# A replica runs on one thread: requests beyond a few would queue there instead of going to another replica.
@serve.deployment(
    max_ongoing_requests=64,
    max_queued_requests=256,
    backpressure_config={"status_code": 429, "retry_after_s": 1},
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 8,
        "target_ongoing_requests": 16,
        "look_back_period_s": 15,
        "upscale_delay_s": 5,
        "downscale_delay_s": 300,
    },
    # New replicas start before old ones stop.
    max_surge_percent=100,
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=1,
    graceful_shutdown_timeout_s=30,
    ray_actor_options={"num_cpus": 1},
)
@serve.ingress()
class Replica:
    """One replica, which serves the files of its node as one worker of ``smallfry-serve`` does.

    Parameters
    ----------
    config : Config
        The options of the server without `embeddings`, which `reconfigure` sets.
    cache : str, optional
        Folder of downloaded files; see `smallfry.download.default_folder`.
    models_per_replica : int
        Maximum number of open models, the last requested ones; 0 opens all.
    """

    def __init__(self, config: Config, cache: str | None, models_per_replica: int) -> None:
        self._config = config
        self._folder = None if cache is None else Path(cache)
        self._keys = Keys.read(config)
        self._cache: ModelCache | None = None
        self._server: Server | None = None
        self._app: ASGIApp | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = monotonic()
        self._trimmer = MallocTrimmer()

        async def lease(name: str) -> Lease:
            assert self._cache is not None
            return await asyncio.to_thread(self._cache.lease, name)

        self._lease: Any = None
        if models_per_replica:
            self._lease = serve.multiplexed(lease, max_num_models_per_replica=models_per_replica)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the ASGI application; Serve calls this once, before the first `reconfigure`."""

        # uvicorn does not recognize methods as coroutines.
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(scope, receive, send)

        return app

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Serve the ``embeddings`` of Serve's ``user_config``; called at the start and when it changes.

        All files are reopened and then replace the old ones at once; requests in flight keep their model. A
        file that cannot be opened is logged, and the loaded model of its name stays. It is an error if none
        can be opened at the start.
        """
        if self._server is None:
            self._server = await asyncio.to_thread(self._start, user_config)
            self._app = create_app(self._server)
            self._task = asyncio.create_task(self._run_periodic_tasks(self._server))
        else:
            await asyncio.to_thread(self._change_sources, self._server, user_config)

    async def check_health(self) -> None:
        """Fail if ``/readyz`` does, so that Serve replaces a replica that is not ready."""
        if self._server is None or self._task is None or self._task.done():
            raise Unavailable("the periodic tasks of the replica have stopped")
        if not self._server.models.names():
            raise Unavailable("no model is loaded")

    def report(self) -> stats.Report:
        """Return this replica's part of ``/stats``."""
        assert self._server is not None
        server = self._server
        return stats.read(server.models, server.devices, server.scoreboard, monotonic() - self._started)

    def _start(self, user_config: Mapping[str, Any]) -> Server:
        # Serve's proxy may have any name.
        config = replace(self._config, embeddings=_embeddings(user_config), forwarded_allow_ips="*")
        sources = self._sources(config.embeddings)

        def open_models(scoreboard: Scoreboard) -> Models:
            scoreboard.register(0)
            if self._lease is None:
                return Models(sources, scoreboard, verify=config.verify)
            self._cache = ModelCache(sources, scoreboard, verify=config.verify)
            return self._cache

        return Server.open(config, open_models, gather)

    def _change_sources(self, server: Server, user_config: Mapping[str, Any]) -> None:
        try:
            server.models.replace_sources(self._sources(_embeddings(user_config)), server.meter)
        except (ConfigError, SmallfryError, OSError) as error:
            logger.error("the served models do not change: %s", error)

    def _sources(self, embeddings: Sequence[str]) -> RemoteSources:
        key = (self._config.api_keys or "").split(",")[0].strip() or None
        return RemoteSources(embeddings, folder=self._folder, api_key=key)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(receive, send)
            return
        assert self._app is not None

        async def forward(message: Message) -> None:
            # Messages are pickled on their way to the proxy, which adds its own request ID.
            if isinstance(body := message.get("body"), memoryview):
                message = {**message, "body": body.tobytes()}
            if "headers" in message:
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": headers if self._lease is None else [*headers, MULTIPLEXED]}
            await send(message)

        try:
            _check_read_only(scope)
            lease, receive = await self._lease_model(scope, receive)
            with lease:
                await self._app(scope, receive, forward)
        except ServiceError as error:
            await error_response(error)(scope, receive, forward)

    async def _lease_model(
        self, scope: Scope, receive: Receive
    ) -> tuple[AbstractContextManager[None], Receive]:
        """With multiplexing, lease the model of a request; return the `receive` that replays its body."""
        if self._lease is None or self._cache is None:
            return nullcontext(), receive
        try:
            if self._keys.required:
                self._keys.check(scope["headers"])
        except ServiceError:
            return nullcontext(), receive  # the application rejects the request
        name, receive = await requested_model(scope, receive, self._config.max_body)
        names = self._cache.names()
        if not name and len(names) == 1:
            name = names[0]
        if name not in names:
            return nullcontext(), receive
        lease: Lease = await self._lease(name)
        return lease.use(), receive

    async def _run_periodic_tasks(self, server: Server) -> None:
        """Run the tasks of a worker every second, and reload when files were replaced."""
        seen: set[tuple[int, ...]] = set()
        for number in count(1):
            await asyncio.sleep(_TICK)
            retry = number % _TICKS_PER_RETRY == 0
            try:
                await asyncio.to_thread(_tick, server, seen, self._trimmer, retry)
            except OSError as error:
                logger.error("checking the files: %s", error)


def _tick(server: Server, seen: set[tuple[int, ...]], trimmer: MallocTrimmer, retry: bool) -> None:
    server.history.record()
    server.models.reopen(server.models.maintain())
    replaced = {stamp for model in server.models.values() if (stamp := model.replacement()) is not None}
    if replaced - seen or (retry and any(map(is_url, server.models.failed))):
        seen |= replaced
        server.models.reload(server.meter)
    server.devices.load(server.models.values())
    if trimmer.is_due():
        trimmer.trim()


def _check_read_only(scope: Scope) -> None:
    """Reject requests that would change one replica only."""
    if route_path(scope).startswith("/models/") and scope["method"] not in ("GET", "HEAD"):
        raise NotAllowed("this would change only one of many replicas; deploy again with another user_config")


async def gather(own: stats.Report) -> stats.Report:
    """Sum the reports of all replicas; those that do not respond in time are left out."""
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    reports = await handle.broadcast("report").results_async(
        timeout_s=_GATHER_TIMEOUT, return_exceptions=True
    )
    return stats.gather([report for report in reports if isinstance(report, stats.Report)] or [own])


async def _run_lifespan(receive: Receive, send: Send) -> None:
    """Acknowledge the events of the lifespan protocol; `Replica.reconfigure` starts everything."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


def app(arguments: dict[str, Any]) -> Application:
    """Return the application that Serve runs.

    Parameters
    ----------
    arguments : dict
        ``embeddings``, a string or a list of strings; ``cache``; ``models_per_replica``; and options of
        ``smallfry-serve`` by name (``max_body``). Defaults are the ``SMALLFRY_*`` variables of the process
        that deploys.

    Raises
    ------
    ConfigError
        An option is unknown or invalid.
    """
    known = {option.name for option in options()} - _EXCLUDED
    unknown = arguments.keys() - known - set(_OWN)
    if unknown:
        raise ConfigError(
            f"{min(unknown)!r} is not an option on Ray Serve; options: {', '.join(sorted(known.union(_OWN)))}"
        )
    variables = {PREFIX + name.upper(): _text(value) for name, value in arguments.items() if name not in _OWN}
    excluded = {PREFIX + name.upper() for name in _EXCLUDED}
    environ = {name: value for name, value in os.environ.items() if name not in excluded}
    config = load((), environ | variables | {f"{PREFIX}DASHBOARD": "no"}, smallfry.__version__)
    for name in ("SSL_CERTFILE", "SSL_CA_CERTS"):
        if PREFIX + name in os.environ:
            raise ConfigError(
                f"{PREFIX}{name} has no effect on Ray Serve; unset it, and set TLS in its http_options"
            )
    if config.api_keys is None and config.api_keys_file is None:
        logger.warning(
            "there are no keys: all models are open to whoever reaches Serve's HTTP address; "
            "set api_keys_file or SMALLFRY_API_KEYS"
        )
    cache = arguments.get("cache") or os.environ.get(f"{PREFIX}CACHE") or None
    limit = _whole(arguments.get("models_per_replica") or os.environ.get(f"{PREFIX}MODELS_PER_REPLICA") or 0)
    # Only user_config can change without new replicas.
    replicas = Replica.options(  # type: ignore[attr-defined]
        user_config={"embeddings": list(config.embeddings)}
    )
    application: Application = replicas.bind(replace(config, embeddings=()), cache, limit)
    return application


def _embeddings(user_config: Mapping[str, Any]) -> tuple[str, ...]:
    embeddings = user_config.get("embeddings")
    items = [embeddings] if isinstance(embeddings, str) else embeddings
    if not embeddings:
        raise ConfigError(
            "nothing to serve; pass embeddings=PATH, set SMALLFRY_EMBEDDINGS or embeddings in user_config"
        )
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ConfigError(
            f"embeddings in user_config is {embeddings!r}; it has to be a list of [NAME=]PATH or URL"
        )
    return tuple(items)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _whole(value: Any) -> int:  # noqa: ANN401 - any JSON value
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ConfigError(f"models_per_replica is {value!r}; it has to be a whole number of at least 0")
    return number
