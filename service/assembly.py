"""The parts of one answering process, put together from its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp

from service.app import create_app
from service.config import Config
from service.errors import ConfigError
from service.gpu.placement import Placement, check_device
from service.http.auth import Keys, read_keys
from service.http.middleware import Lifecycle
from service.models.registry import Models
from service.models.sources import Sources
from service.observability.history import Traffic
from service.observability.metrics import COUNTERS, Meter
from service.process.scoreboard import Board
from service.routes.health import Gather


@dataclass(frozen=True)
class Assembly:
    """What answers, and what it answers from.

    Attributes
    ----------
    app : ASGI application
    models : Models
        What is served, open.
    placement : Placement
        What of it lies on a device.
    board : Board
        What the server's processes share.
    meter : Meter
        The counters of the first of them.
    traffic : Traffic
        Where the counters are noted.
    lifecycle : Lifecycle
        Where the end is told to the application.
    """

    app: ASGIApp
    models: Models
    placement: Placement
    board: Board
    meter: Meter
    traffic: Traffic
    lifecycle: Lifecycle


def assemble(
    config: Config, open_models: Callable[[Board], Models] | None = None, gather: Gather | None = None
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
    board = Board(config.workers, COUNTERS)
    if open_models is None:
        models = Models(Sources(config.embeddings), board, verify=config.verify)
    else:
        models = open_models(board)
    if not models.names() and not keys.has_admin:
        raise ConfigError(f"there is no .sfq file in {', '.join(config.embeddings)}")
    meter, lifecycle = Meter(board.block(0)), Lifecycle()
    placement = Placement(config, meter)
    traffic = Traffic(board)
    app: ASGIApp = create_app(config, models, placement, board, meter, traffic, keys, lifecycle, gather)
    if config.tracing:
        from service.http import tracing

        app = tracing.Tracing(app)
    return Assembly(app, models, placement, board, meter, traffic, lifecycle)
