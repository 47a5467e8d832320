"""The parent process of several workers: starts, restarts, reloads and stops them.

An idle worker has 7.5 MB of private memory, against 10.1 MB under ``gunicorn --preload``, which neither
drains before it stops nor reloads files without a restart (``docs/explanation/performance.md``).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from service.process.listener import Listener
from service.process.worker import SIGNALS
from service.server import Server

logger = logging.getLogger("smallfry.server")

#: A worker that dies within this many seconds has failed to start, and is restarted after a pause as long.
_PAUSE = 1.0
#: Workers that are started between two checks for signals.
_BATCH = 8
#: Failed starts in a row after which the server gives up, if no worker runs.
_MAX_FAILURES = 5
#: Seconds after the shutdown timeout at which workers are killed.
_GRACE = 1.0


class Supervisor:
    """Forked workers that accept connections from one socket.

    Workers are forked after all imports and files are loaded, so they share those pages: each costs only the
    pages that it writes. A worker that dies is restarted and continues its counters; one that fails to start
    (``fork`` failed, or it died at once) after a pause. The server gives up after several failed starts in a
    row if no worker runs.

    The supervisor handles the signals: on SIGHUP it reloads, and workers adopt the result from the
    scoreboard; it forwards SIGTERM, and SIGINT as SIGQUIT, because a terminal sends SIGINT to the workers
    too. It closes its listening socket on shutdown, so that only the workers keep it open. `work` runs a
    worker until it is stopped.
    """

    def __init__(self, server: Server, listener: Listener, work: Callable[[int], None]) -> None:
        self._server = server
        self._listener = listener
        self._work = work
        self._workers: dict[int, int] = {}
        self._started = [0.0] * server.config.workers
        self._due = dict.fromkeys(range(server.config.workers), 0.0)
        self._failures = 0
        self._gave_up = False
        self._deadline: float | None = None

    def run(self) -> int:
        """Supervise until stopped and all workers have ended; return the exit code."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        for handled in (*SIGNALS, signal.SIGCHLD):
            # The signal number arrives through the wakeup descriptor.
            signal.signal(handled, lambda number, frame: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS, signal.SIGCHLD})
        # Unlike select, poll takes descriptors above 1023: each model has one.
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        while self._due or self._workers:
            pause = 0.0 if self._start_due() else self._pause()
            if poller.poll(1000 * pause):
                for number in reader.recv(1024):
                    self._handle(number)
            self._reap()
            # Before a worker that died on a truncated file is restarted with the same mapping.
            self._server.models.reopen(self._server.models.maintain())
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._send(signal.SIGKILL)
        return int(self._gave_up)

    def _pause(self) -> float:
        """Return the seconds until the next check if no signal arrives; workers are killed in time."""
        left = _PAUSE if self._deadline is None else self._deadline - time.monotonic()
        return left if 0 < left < _PAUSE else _PAUSE

    def _start_due(self) -> bool:
        """Start a batch of the workers that are due; return whether more are due."""
        now = time.monotonic()
        due = [number for number, since in self._due.items() if since <= now]
        for number in due[:_BATCH]:
            del self._due[number]
            # Signals stay blocked until the worker has installed its handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                pid = os.fork()
            except OSError as error:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                logger.error("worker %d cannot be started: %s", number, error.strerror)
                self._retry(number)
                return False
            if pid == 0:
                self._become(number)
            self._workers[pid] = number
            self._started[number] = now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return len(due) > _BATCH

    def _become(self, number: int) -> None:
        """Run the worker in this process, then exit."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._work(number)
            code = 0
        except BaseException:
            logger.exception("worker %d failed", number)
        finally:
            logging.shutdown()
            os._exit(code)

    def _handle(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        elif number in SIGNALS:
            # Not SIGTERM again: a worker that is starting would get both as one.
            drain = number == signal.SIGTERM and self._deadline is None
            self._stop(signal.SIGTERM if drain else signal.SIGQUIT)

    def _reload(self) -> None:
        try:
            self._server.models.reload(self._server.meter)
        except (OSError, MemoryError) as error:
            logger.error("the served models do not change: %s", error)

    def _stop(self, number: signal.Signals) -> None:
        self._due.clear()
        self._listener.socket.close()
        self._deadline = self._deadline or time.monotonic() + self._server.config.shutdown_timeout + _GRACE
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._workers:
            os.kill(pid, number)

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            number, now = self._workers.pop(pid), time.monotonic()
            if self._deadline is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            reason = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            logger.error("worker %d (pid %d) ended with %s", number, pid, reason)
            self._server.scoreboard.count_restart()
            if now - self._started[number] < _PAUSE:
                self._retry(number)
            else:
                self._failures = 0
                self._due[number] = now

    def _retry(self, number: int) -> None:
        """Start a worker again after a pause; give up if none runs and too many starts have failed."""
        self._failures += 1
        self._due[number] = time.monotonic() + _PAUSE
        if self._failures >= _MAX_FAILURES and not self._workers:
            logger.critical("%d starts of workers failed in a row, giving up", self._failures)
            self._gave_up = True
            self._stop(signal.SIGTERM)
