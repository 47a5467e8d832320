"""A worker process: uvicorn's server with our signals and periodic tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from service.errors import TooManyConnections
from service.http.protocol import Protocol, Receiver
from service.observability.logging import log_request
from service.process.listener import BACKLOG, Listener
from service.process.malloc_trim import MallocTrimmer
from service.server import Server

logger = logging.getLogger("smallfry.server")

#: Signals that a worker handles.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

_TICKS_PER_SECOND = 10
#: Open connections of a worker; fewer if it may open fewer files, of which it leaves some for other uses.
_MAX_CONNECTIONS, _OTHER_DESCRIPTORS = 1 << 14, 128
#: Seconds between two warnings about excess connections.
_QUIET = 60.0
#: Bytes of unsent responses and unfinished heads over all stalled connections above which the shorter timeout
#: applies to these.
_MAX_HELD = 1 << 24
#: That timeout in seconds.
_SHORT_TIMEOUT = 1.5
#: Seconds after which a body is late that was expected together with its head.
_LATE = 0.5
#: Seconds for accepting the connections in the backlog of a Unix socket.
_ACCEPT = 0.05
#: Seconds within which all workers close their listening sockets.
_SETTLE = 0.3


class Worker(uvicorn.Server):
    """Serve requests until a signal stops the process.

    SIGTERM starts a graceful shutdown: ``/readyz`` turns 503, and after the drain delay the worker stops
    accepting. SIGINT, SIGQUIT or a second SIGTERM skip the delay. Requests in flight finish within the
    shutdown timeout. SIGHUP reloads the models. Under a supervisor, workers ignore SIGINT and SIGHUP, which
    a terminal sends to all processes: the supervisor handles them.
    """

    def __init__(self, app: ASGIApp, server: Server, listener: Listener) -> None:
        config = server.config
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level=config.log_level,
                access_log=False,
                proxy_headers=config.forwarded_allow_ips is not None,
                forwarded_allow_ips=config.forwarded_allow_ips,
                server_header=False,
                timeout_keep_alive=config.keep_alive_timeout,
                timeout_graceful_shutdown=max(1, int(config.shutdown_timeout - config.drain_delay - _SETTLE)),
                ssl_certfile=config.ssl_certfile,
                ssl_keyfile=config.ssl_keyfile,
                ssl_keyfile_password=config.ssl_keyfile_password,
                ssl_ca_certs=config.ssl_ca_certs,
                ssl_cert_reqs=ssl.CERT_REQUIRED if config.ssl_ca_certs else ssl.CERT_NONE,
            )
        )
        self._server = server
        self._listener = listener
        self._supervisor = os.getppid() if config.workers > 1 else None
        self._trimmer = MallocTrimmer()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(server.models.names())
        self._max_connections = max(1, min(_MAX_CONNECTIONS, descriptors - _OTHER_DESCRIPTORS))
        self._warned = -_QUIET

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the loop runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGQUIT, self._stop)
        if self._supervisor is None:
            loop.add_signal_handler(signal.SIGINT, self._stop)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
        # The loop removes the handlers when it closes; a signal would then change the exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    async def on_tick(self, counter: int) -> bool:
        """Run the periodic tasks once a second; shut down if the supervisor has died."""
        if counter % _TICKS_PER_SECOND == 0:
            server = self._server
            server.history.record()
            if overwritten := server.models.maintain():
                # In a thread: with --verify it reads whole files.
                await asyncio.get_running_loop().run_in_executor(None, server.models.reopen, overwritten)
            server.devices.load(server.models.values())
            self._abort_stalled()
            if self._trimmer.is_due():
                asyncio.get_running_loop().run_in_executor(None, self._trimmer.trim)
            if self._supervisor not in (None, os.getppid()):
                self._drain()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn has no timeout of TLS handshakes."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        self.servers = [
            await loop.create_server(
                self._accept,
                sock=listener,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._server.config.request_timeout,
            )
            for listener in sockets or []
        ]
        self.started = True

    def _accept(self) -> Receiver:
        """Return the protocol of a new connection."""
        return Receiver(
            Protocol(self.config, self.server_state, {}, self._count_rejected, self._max_connections)
        )

    def _count_rejected(self, client: tuple[str, int] | None, status: int) -> bytes:
        """Count and log a request that is not HTTP, or on an excess connection; return its ID."""
        if status == TooManyConnections.status and monotonic() - self._warned > _QUIET:
            self._warned = monotonic()
            logger.warning("%d connections are open: further ones are closed", self._max_connections)
        request_id = os.urandom(9).hex().encode()
        self._server.meter.enter()
        self._server.meter.leave("", status, 0)
        if self._server.config.access_log:
            log_request({"method": "-", "path": "-", "client": client}, "", request_id, status, 0)
        return request_id

    def _abort_stalled(self) -> None:
        """Abort connections whose client has stalled for the request timeout.

        Unsent responses and unfinished heads occupy memory, and responses also slots: the timeout is shorter
        above `_MAX_HELD` bytes, and while large requests wait for a slot.
        """
        timeout = self._server.config.request_timeout
        short = min(_SHORT_TIMEOUT, timeout)
        connections = [cast(Protocol, connection) for connection in self.server_state.connections]
        for connection in connections:
            connection.parse_partial(_LATE)
        stalled = [
            (connection, seconds) for connection in connections if (seconds := connection.stalled()) > short
        ]
        held = sum(connection.held for connection, _ in stalled)
        contended = held > _MAX_HELD or self._server.limits.large.is_contended
        for connection, seconds in stalled:
            if seconds > timeout or (connection.held and contended):
                connection.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down without losing a request.

        The listening sockets of all workers close first. Only then do responses close their connections: a
        client that reconnected earlier would wait in the backlog of a socket that is about to close. The file
        of a Unix socket is removed before, so that its backlog is empty when it closes.
        """
        if self._server.config.uds is not None:
            self._listener.unlink()
            await asyncio.sleep(_ACCEPT)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        if not self.force_exit:
            await asyncio.sleep(_SETTLE)
        self._server.lifecycle.closing = True
        await super().shutdown(sockets)

    def _drain(self) -> None:
        if self._server.lifecycle.draining:
            self._stop()
            return
        delay = self._server.config.drain_delay
        logger.info("shutting down: not ready, accepting for another %g s", delay)
        self._server.lifecycle.drain(self._server.config.shutdown_timeout)
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)

    def _stop(self) -> None:
        self._server.lifecycle.drain(self._server.config.shutdown_timeout)
        self.force_exit = self.should_exit
        self.should_exit = True

    def _reload(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._server.models.reload, self._server.meter)
