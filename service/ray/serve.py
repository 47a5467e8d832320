"""The server on Ray Serve: the same application in replicas on many machines.

    serve run service.ray.serve:app embeddings=/models/glove.sfq

Needs the extra ``ray``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from service.http.auth import Keys, read_keys
from service.http.limits import RETRY
from service.http.response import error_response
from service.models.registry import Models
from service.models.sources import reason
from service.observability import stats
from service.process.malloc_trim import MallocTrimmer
from service.ray.model_id import asked_model
from service.ray.multiplexing import Lease, ModelCache
from service.ray.proxy import SPREAD
from service.ray.sources import RemoteSources
from service.scoreboard import Scoreboard
from service.server import Server
from smallfry import SmallfryError

logger = logging.getLogger("smallfry.server")

_TICK = 1.0
_GATHER_TIMEOUT = 5.0
#: What the application takes beyond the options of ``smallfry-serve``.
_OWN = ("cache", "models_per_replica")
#: Serve's, or of no use where Serve listens and answers are those of many.
_NOT_HERE = frozenset(
    {"host", "port", "uds", "workers", "drain_delay", "shutdown_timeout", "dashboard", "admin_key_file"}
    | {"admin_key", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"}
)


# A replica answers on one thread: what it is sent beyond a few requests would wait there, not elsewhere.
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
    # New replicas come before old ones go.
    max_surge_percent=100,
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=1,
    graceful_shutdown_timeout_s=30,
    ray_actor_options={"num_cpus": 1},
)
@serve.ingress()
class Replica:
    """One replica: it maps the files of its node, and answers as one worker of ``smallfry-serve`` does.

    Parameters
    ----------
    config : Config
        The options of the server, but for what it serves: that is given to `reconfigure`.
    cache : str, optional
        Folder of this node's copies; see `smallfry.download.default_folder`.
    models_per_replica : int
        Vocabularies that are open at once, those asked for last; 0 opens all.
    """

    def __init__(self, config: Config, cache: str | None, models_per_replica: int) -> None:
        self._config = config
        self._cache = None if cache is None else Path(cache)
        self._keys = Keys(read_keys(config.api_keys_file, config.api_keys))
        self._shelf: ModelCache | None = None
        self._server: Server | None = None
        self._app: ASGIApp | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._started = monotonic()
        self._trimmer = MallocTrimmer()

        async def place(name: str) -> Lease:
            assert self._shelf is not None
            return await asyncio.to_thread(self._shelf.place, name)

        self._load: Any = None
        if models_per_replica:
            self._load = serve.multiplexed(place, max_num_models_per_replica=models_per_replica)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return what answers; Serve calls this once, before the first `reconfigure`."""

        # Of methods, uvicorn does not see that they are coroutines.
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self._answer(scope, receive, send)

        return answer

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Serve the ``embeddings`` of Serve's ``user_config``; called at the start and when it changes.

        All files are opened anew and then take the place of the old ones at once; requests that have begun
        end on those that they began with. What cannot be opened is logged, and what was served still is.

        Raises
        ------
        ConfigError, SmallfryError, OSError
            At the start: there is nothing to serve, or it cannot be opened.
        """
        if self._server is None:
            self._server = await asyncio.to_thread(self._start, user_config)
            self._app = create_app(self._server)
            self._ticking = asyncio.create_task(self._tick(self._server))
        else:
            await asyncio.to_thread(self._follow, self._server, user_config)

    async def check_health(self) -> None:
        """Fail where ``/readyz`` does, so that Serve replaces a replica that is not ready."""
        if self._server is None or self._ticking is None or self._ticking.done():
            raise Unavailable("the replica does not look after its files")
        if not self._server.models.names():
            raise Unavailable("no model is loaded")

    def report(self) -> stats.Report:
        """Return this replica's part of ``/stats``."""
        assert self._server is not None
        server = self._server
        return stats.read(server.models, server.devices, server.scoreboard, monotonic() - self._started)

    def _start(self, user_config: Mapping[str, Any]) -> Server:
        config = replace(self._config, embeddings=_embeddings(user_config))
        origins = self._origins(config.embeddings)

        def open_models(scoreboard: Scoreboard) -> Models:
            scoreboard.register(0)
            if self._load is None:
                return Models(origins, scoreboard, verify=config.verify)
            self._shelf = ModelCache(origins, scoreboard, verify=config.verify)
            return self._shelf

        return Server.open(config, open_models, gather)

    def _follow(self, server: Server, user_config: Mapping[str, Any]) -> None:
        try:
            server.models.follow(self._origins(_embeddings(user_config)), server.meter)
        except (ConfigError, SmallfryError, OSError) as error:
            logger.error("what is served stays as it was: %s", error)

    def _origins(self, embeddings: Sequence[str]) -> RemoteSources:
        key = (self._config.api_keys or "").split(",")[0] or None
        return RemoteSources(embeddings, folder=self._cache, api_key=key)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        assert self._app is not None

        async def pass_on(message: Message) -> None:
            # Messages are pickled on their way to the proxy, which adds the request's id.
            if isinstance(body := message.get("body"), memoryview):
                message = {**message, "body": body.tobytes()}
            if "headers" in message:
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": headers if self._load is None else [*headers, SPREAD]}
            await send(message)

        try:
            _check_unchanging(scope)
            if self._load is None or not self._may_load(dict(scope["headers"])):
                await self._app(scope, receive, pass_on)
                return
            await self._answer_loaded(scope, receive, pass_on)
        except ServiceError as error:
            await error_response(error)(scope, receive, pass_on)

    async def _answer_loaded(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._shelf is not None and self._app is not None
        name, receive = await asked_model(scope, receive, self._config.max_body)
        name = name or self._shelf.only()
        if name is None or name not in self._shelf.names():
            await self._app(scope, receive, send)
            return
        try:
            place = await self._load(name)
        except (SmallfryError, OSError) as error:
            raise Unavailable(f"{name!r} cannot be opened now: {reason(error)}", headers=RETRY) from None
        with place.taken():
            await self._app(scope, receive, send)

    def _may_load(self, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether a request has the key that it needs; the application refuses those that have not."""
        try:
            if self._keys.required:
                self._keys.check(headers)
        except ServiceError:
            return False
        return True

    async def _tick(self, server: Server) -> None:
        """Do each second what a worker does, and take over files that were replaced."""
        tried: set[tuple[int, ...]] = set()
        while True:
            await asyncio.sleep(_TICK)
            try:
                await asyncio.to_thread(_look, server, tried, self._trimmer)
            except OSError as error:
                logger.error("looking for new files: %s", error)


def _look(server: Server, tried: set[tuple[int, ...]], trimmer: MallocTrimmer) -> None:
    server.history.record()
    server.models.drop_overwritten()
    found = {stamp for model in server.models.values() if (stamp := model.replacement()) is not None}
    if found - tried:
        tried |= found
        server.models.reload_all(server.meter)
    server.devices.load(server.models.values())
    if trimmer.is_due():
        trimmer.trim()


def _check_unchanging(scope: Scope) -> None:
    """Refuse what would change one replica and no other."""
    if scope["path"].startswith("/models/") and scope["method"] not in ("GET", "HEAD"):
        raise NotAllowed("this would change one replica of many; deploy again with another user_config")


async def gather(own: stats.Report) -> stats.Report:
    """Ask all replicas for their reports and add them up; one that does not answer in time is left out."""
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    answers = await handle.broadcast("report").results_async(
        timeout_s=_GATHER_TIMEOUT, return_exceptions=True
    )
    return stats.gather([answer for answer in answers if isinstance(answer, stats.Report)] or [own])


async def _live(receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol: there is nothing to start that `Replica.reconfigure` does not."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


def app(arguments: dict[str, Any]) -> Application:
    """Return the application that Serve runs.

    Parameters
    ----------
    arguments : dict
        ``embeddings``, a string or a list of them; ``cache``; ``models_per_replica``; and options of
        ``smallfry-serve`` under their names (``max_body``). What is not given is taken from the
        ``SMALLFRY_*`` variables of the process that deploys.

    Raises
    ------
    ConfigError
        There is no such option, or it has the wrong form.
    """
    known = {option.name for option in options()} - _NOT_HERE
    unknown = arguments.keys() - known - set(_OWN)
    if unknown:
        raise ConfigError(
            f"there is no option {min(unknown)!r} here; options: {', '.join(sorted(known.union(_OWN)))}"
        )
    given = {PREFIX + name.upper(): _text(value) for name, value in arguments.items() if name not in _OWN}
    environ = {name: value for name, value in os.environ.items() if _is_ours(name, known)}
    config = load((), environ | given | {f"{PREFIX}DASHBOARD": "no"}, smallfry.__version__)
    cache = arguments.get("cache") or os.environ.get(f"{PREFIX}CACHE") or None
    most = _whole(arguments.get("models_per_replica") or os.environ.get(f"{PREFIX}MODELS_PER_REPLICA") or 0)
    # What is served stands in user_config alone: there it can change without new replicas.
    replicas = Replica.options(  # type: ignore[attr-defined]
        user_config={"embeddings": list(config.embeddings)}
    )
    application: Application = replicas.bind(replace(config, embeddings=()), cache, most)
    return application


def _embeddings(user_config: Mapping[str, Any]) -> tuple[str, ...]:
    given = user_config.get("embeddings")
    items = [given] if isinstance(given, str) else given
    if not given:
        raise ConfigError(
            "nothing to serve; give embeddings=PATH, set SMALLFRY_EMBEDDINGS, or give user_config embeddings"
        )
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ConfigError(
            f"user_config gives {given!r} as embeddings; it has to be a list of [NAME=]PATH or URL"
        )
    return tuple(items)


def _is_ours(variable: str, known: set[str]) -> bool:
    return variable.startswith(PREFIX) and variable.removeprefix(PREFIX).lower() in known


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
