"""The server on Ray Serve: the same application in replicas on many machines.

    SMALLFRY_EMBEDDINGS=/models/glove.sfq serve run service.ray_app:app

Options are the ``SMALLFRY_*`` variables of ``smallfry-serve``, or arguments of the application:
``serve run service.ray_app:build embeddings=/models/glove.sfq``. Needs the extra ``ray``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import smallfry
from service.assembly import Assembly, assemble
from service.config import PREFIX, Config, load
from service.errors import Unavailable
from service.fetched import local_embeddings

CACHE = "SMALLFRY_CACHE"
"""The variable that names the folder of fetched files; by default one among the machine's temporary files."""

logger = logging.getLogger("smallfry.server")

# A replica's own limits decide what it takes, and refuse in the server's form; Serve's lie behind them.
_ONGOING = 512
_QUEUED = 2048
_AUTOSCALING = {"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 32}
_TICK = 1.0


@serve.deployment(
    max_ongoing_requests=_ONGOING,
    max_queued_requests=_QUEUED,
    autoscaling_config=_AUTOSCALING,
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
    options : dict of str to str
        Variables of the server that the node's own environment does not have to hold.
    """

    def __init__(self, options: dict[str, str]) -> None:
        self._environ = dict(os.environ) | options
        self._parts = assemble(self._config())
        self._ticking: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Serve calls this once, in the replica's event loop or before it."""
        return _Pickled(self._parts.app)

    async def reconfigure(self, user_config: Any) -> None:  # noqa: ANN401 - whatever the operator writes there
        """Look for new files; Serve calls this in every replica where ``user_config`` was changed."""
        await asyncio.to_thread(self._parts.models.reload_all)

    async def check_health(self) -> None:
        """Say that the replica can answer; Serve replaces one that raises."""
        if self._ticking is None:
            self._ticking = asyncio.create_task(_tick(self._parts))
        if self._ticking.done() or not self._parts.models:
            raise Unavailable("no model is loaded")

    def _config(self) -> Config:
        config = load([], self._environ | {f"{PREFIX}WORKERS": "1"}, smallfry.__version__)
        folder = Path(self._environ.get(CACHE) or Path(tempfile.gettempdir()) / f"smallfry-{os.getuid()}")
        keys = (config.api_keys or "").split(",")
        local = local_embeddings(config.embeddings, folder, keys[0] or None)
        return load(
            [f"--embeddings={item}" for item in local],
            self._environ | {f"{PREFIX}WORKERS": "1"},
            smallfry.__version__,
        )


class _Pickled:
    """Serve pickles an application's messages on their way to the proxy: views of memory become bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_bytes(message: Message) -> None:
            if isinstance(message.get("body"), memoryview):
                message["body"] = bytes(message["body"])
            await send(message)

        await self._app(scope, receive, send_bytes)


async def _tick(parts: Assembly) -> None:
    """Do each second what a worker does, and take over files that were replaced."""
    tried: set[tuple[int, ...]] = set()
    while True:
        await asyncio.sleep(_TICK)
        try:
            await asyncio.to_thread(_look, parts, tried)
        except OSError as error:
            logger.error("looking for new files: %s", error)


def _look(parts: Assembly, tried: set[tuple[int, ...]]) -> None:
    parts.traffic.note()
    parts.models.drop_overwritten()
    found = {stamp for model in parts.models.values() if (stamp := model.replacement()) is not None}
    if found - tried:
        tried |= found
        parts.models.reload_all()
    parts.placement.place(parts.models.values())


def build(arguments: dict[str, Any]) -> Application:
    """Return the application with options of the server: ``{"embeddings": "/models/glove.sfq"}``."""
    options = {f"{PREFIX}{name.upper()}": str(value) for name, value in arguments.items()}
    application: Application = Replica.bind(options)  # type: ignore[attr-defined]
    return application


app = build({})
