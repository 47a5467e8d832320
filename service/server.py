"""Running the server: one process, or several that share its socket."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext

from starlette.types import ASGIApp

from service import logs
from service.app import create_app
from service.auth import Keys, read_keys
from service.banner import banner
from service.board import Board
from service.config import Config
from service.errors import ConfigError
from service.gate import Lifecycle
from service.listener import check_tls, describe, listen
from service.metrics import COUNTERS, Meter
from service.models import Models
from service.placement import Placement, check_device
from service.sources import Sources
from service.supervisor import Supervisor
from service.traffic import Traffic
from service.worker import SIGNALS, Worker


def serve(config: Config, announce: Callable[[str], None]) -> int:
    """Open the models, listen, and answer until told to stop; return the exit code.

    Parameters
    ----------
    config : Config
        The options of the server.
    announce : callable
        Takes the lines that say what is served and where, once connections are accepted.

    Raises
    ------
    ConfigError
        The address is taken or cannot be listened on, or the options do not go together.
    SmallfryError, OSError
        A file cannot be opened.
    """
    check_tls(config)
    check_device(config)
    keys = Keys(
        read_keys(config.api_keys_file, config.api_keys), read_keys(config.admin_key_file, config.admin_key)
    )
    board = Board(config.workers, COUNTERS)
    models = Models(Sources(config.embeddings), board, verify=config.verify)
    if not models and not keys.has_admin:
        raise ConfigError(f"there is no .sfq file in {', '.join(config.embeddings)}")
    meter, lifecycle = Meter(board.block(0)), Lifecycle()
    placement = Placement(config, meter)
    traffic = Traffic(board)
    app: ASGIApp = create_app(config, models, placement, board, meter, traffic, keys, lifecycle)
    if config.tracing:
        from service import tracing

        app = tracing.Tracing(app)
    # Until a worker or the parent of workers obeys them, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        listener = listen(config)
    except ConfigError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        raise
    logs.configure(config)

    def work(number: int) -> None:
        board.enter(number)
        meter.attach(board.block(number))
        with tracing.exporting() if config.tracing else nullcontext():
            Worker(config, app, models, placement, traffic, lifecycle).run([listener])

    announce(banner(models, describe(config, listener)))
    try:
        if config.workers == 1:
            work(0)
            return 0
        # The collector would write to every page that the workers share.
        gc.collect()
        gc.freeze()
        return Supervisor(config, board, models, listener, work).run()
    finally:
        gc.unfreeze()
        listener.close()
        if config.uds is not None:
            os.unlink(config.uds)
