"""Running the server: one process, or several that share its socket."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from service.assembly import assemble
from service.config import Config
from service.errors import ConfigError
from service.observability import logging as logs
from service.process.banner import banner
from service.process.listener import check_tls, describe, listen
from service.process.supervisor import Supervisor
from service.process.worker import SIGNALS, Worker


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
    parts = assemble(config)
    scoreboard, models, meter = parts.scoreboard, parts.models, parts.meter
    # Until a worker or the parent of workers obeys them, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        listener = listen(config)
    except ConfigError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        raise
    logs.configure(config)

    def work(number: int) -> None:
        scoreboard.enter(number)
        meter.attach(scoreboard.block(number))
        worker = Worker(config, parts.app, models, meter, parts.placement, parts.traffic, parts.lifecycle)
        with _tracing(config):
            worker.run([listener])

    announce(banner(models, describe(config, listener)))
    try:
        if config.workers == 1:
            work(0)
            return 0
        # The collector would write to every page that the workers share.
        gc.collect()
        gc.freeze()
        meter.attach(scoreboard.block(config.workers))
        return Supervisor(config, scoreboard, models, meter, listener, work).run()
    finally:
        gc.unfreeze()
        listener.close()
        if config.uds is not None:
            os.unlink(config.uds)


def _tracing(config: Config) -> AbstractContextManager[None]:
    if not config.tracing:
        return nullcontext()
    from service.http import tracing

    return tracing.exporting()
