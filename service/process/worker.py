"""One process that answers, with the signals that it obeys."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from service.http.protocol import Protocol
from service.process.malloc_trim import MallocTrimmer
from service.server import Server

logger = logging.getLogger("smallfry.server")

#: What a worker obeys, and its parent passes on.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

_TICKS_A_SECOND = 10
#: Bytes of answers that clients have not taken, from which on those who take nothing are cut off soon:
_MAX_UNSENT = 1 << 28
#: … after so many seconds.
_PATIENCE = 1.5
#: Seconds in which all workers close their listening sockets, once the first has.
_SETTLE = 0.3


class Worker(uvicorn.Server):
    """An event loop that answers requests until it is told to stop.

    SIGTERM turns ``/readyz`` to 503 and, after the drain delay, ends accepting; SIGINT and SIGQUIT end it at
    once, and so does a second SIGTERM. Requests in flight are finished within the shutdown timeout. SIGHUP
    loads the models anew. Under a parent, SIGINT and SIGHUP are the parent's: a terminal sends them to all.

    Parameters
    ----------
    app : ASGI application
    server : Server
        The parts of this process.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        config = server.config
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level=config.log_level,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, int(config.shutdown_timeout - config.drain_delay - _SETTLE)),
                ssl_certfile=config.ssl_certfile,
                ssl_keyfile=config.ssl_keyfile,
                ssl_keyfile_password=config.ssl_keyfile_password,
                ssl_ca_certs=config.ssl_ca_certs,
                ssl_cert_reqs=ssl.CERT_REQUIRED if config.ssl_ca_certs else ssl.CERT_NONE,
            )
        )
        self._models = server.models
        self._meter = server.meter
        self._placement = server.placement
        self._history = server.history
        self._lifecycle = server.lifecycle
        self._request_timeout = config.request_timeout
        self._drain_delay = config.drain_delay
        self._alone = config.workers == 1
        self._parent = os.getppid()
        self._reclaimer = MallocTrimmer()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obey signals while the loop runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGQUIT, self._stop)
        if self._alone:
            loop.add_signal_handler(signal.SIGINT, self._stop)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look once a second for changed models, stalled clients, and whether the parent still lives.

        The counters are noted as often, and memory that is no longer used is given back.
        """
        if counter % _TICKS_A_SECOND == 0:
            self._history.note()
            self._models.refresh()
            self._models.drop_overwritten()
            self._placement.load(self._models.values())
            self._end_stalled()
            if self._reclaimer.due():
                asyncio.get_running_loop().run_in_executor(None, self._reclaimer.reclaim)
            if not self._alone and os.getppid() != self._parent:
                self._drain()
        return await super().on_tick(counter)

    def _end_stalled(self) -> None:
        """End connections on which the client is awaited for too long.

        Answers that nobody takes are memory: where there is much of it, they are ended within seconds.
        """
        connections = [cast(Protocol, connection) for connection in self.server_state.connections]
        unsent = sum(connection.unsent for connection in connections)
        patience = self._request_timeout if unsent < _MAX_UNSENT else min(_PATIENCE, self._request_timeout)
        for connection in connections:
            seconds, waiting = connection.stalled(), connection.unsent
            if seconds > (patience if waiting else self._request_timeout):
                connection.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in an order that loses no request.

        First the listening sockets close, those of the other workers at about the same time. Only then are
        clients told to close their connections: one that connected again meanwhile would wait in the queue of
        a socket that is about to go.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        if not self.force_exit:
            await asyncio.sleep(_SETTLE)
        self._lifecycle.closing = True
        await super().shutdown(sockets)

    def _drain(self) -> None:
        if self._lifecycle.draining:
            self._stop()
            return
        logger.info("stopping: not ready from now on, accepting for %g s more", self._drain_delay)
        self._lifecycle.draining = True
        asyncio.get_running_loop().call_later(self._drain_delay, setattr, self, "should_exit", True)

    def _stop(self) -> None:
        self._lifecycle.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True

    def _reload(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._models.reload_all, self._meter)
