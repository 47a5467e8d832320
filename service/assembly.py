"""The parts of one answering process, put together from its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp

from service.app import create_app
from service.config import Config
from service.errors import ConfigError
from service.gpu.placement import DeviceManager, check_device
from service.http.auth import Keys, read_keys
from service.lifecycle import Lifecycle
from service.models.registry import Models
from service.models.sources import Sources
from service.observability.history import History
from service.observability.metrics import COUNTERS, Meter
from service.routes.health import Gather
from service.scoreboard import Scoreboard


@dataclass(frozen=True)
class Assembly:
    """What answers, and what it answers from.

    Attributes
    ----------
    app : ASGI application
    models : Models
        What is served, open.
    placement : DeviceManager
        What of it lies on a device.
    scoreboard : Scoreboard
        What the server's processes share.
    meter : Meter
        The counters of the first of them.
    traffic : History
        Where the counters are noted.
    lifecycle : Lifecycle
        Where the end is told to the application.
    """

    app: ASGIApp
    models: Models
    placement: DeviceManager
    scoreboard: Scoreboard
    meter: Meter
    traffic: History
    lifecycle: Lifecycle


def assemble(
    config: Config, open_models: Callable[[Scoreboard], Models] | None = None, gather: Gather | None = None
) -> Assembly:
    """Open the models and make the application.

    Parameters
    ----------
    config : Config
        The options of the server.
    open_models : callable, optional
        What opens them; without it, those of ``--embeddings`` are opened.
    gather : callable, optional
        Where several servers answer as one: makes one report of theirs.

    Raises
    ------
    ConfigError
        The options do not go together, or name nothing to serve.
    SmallfryError, OSError
        A file cannot be opened.
    """
    check_device(config)
    keys = Keys(
        read_keys(config.api_keys_file, config.api_keys), read_keys(config.admin_key_file, config.admin_key)
    )
    scoreboard = Scoreboard(config.workers, COUNTERS)
    if open_models is None:
        models = Models(Sources(config.embeddings), scoreboard, verify=config.verify)
    else:
        models = open_models(scoreboard)
    if not models.names() and not keys.has_admin:
        raise ConfigError(f"there is no .sfq file in {', '.join(config.embeddings)}")
    meter, lifecycle = Meter(scoreboard.block(0)), Lifecycle()
    placement = DeviceManager(config, meter)
    traffic = History(scoreboard)
    app: ASGIApp = create_app(config, models, placement, scoreboard, meter, traffic, keys, lifecycle, gather)
    if config.tracing:
        from service.http import tracing

        app = tracing.Tracing(app)
    return Assembly(app, models, placement, scoreboard, meter, traffic, lifecycle)
