"""The parent of several workers: starts them, starts them again, reloads and stops them."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from service.config import Config
from service.models.registry import Models
from service.observability.metrics import Meter
from service.process.worker import SIGNALS
from service.scoreboard import Scoreboard

logger = logging.getLogger("smallfry.server")

#: Seconds that a worker has to live; one that does not is started again after as many.
_PAUSE = 1.0
#: Workers that are started before signals are heard again.
_AT_ONCE = 8
#: Workers that may die so young, one after the other, before the server gives up.
_ATTEMPTS = 5
#: Seconds beyond the shutdown timeout after which workers are killed.
_GRACE = 1.0


class Supervisor:
    """Forked workers that accept from one socket.

    Forking after everything is imported and opened lets workers share those pages: a further one costs what
    it writes, not an interpreter. A worker that dies is started again in its place, and its counters go on.
    Signals come to the parent. It answers SIGHUP itself, and the workers take the result over from the board;
    SIGTERM is passed on, and SIGINT as SIGQUIT, which a terminal does not send to the workers as well.

    Parameters
    ----------
    config : Config
        The options of the server.
    scoreboard : Scoreboard
        What the processes share.
    models : Models
        What is served.
    meter : Meter
        Where reloads are counted.
    listener : socket
        What the workers accept from; closed here when they are told to stop, so that theirs are the last.
    work : callable
        Answers requests as the worker of the number given, until told to stop.
    """

    def __init__(
        self,
        config: Config,
        scoreboard: Scoreboard,
        models: Models,
        meter: Meter,
        listener: socket.socket,
        work: Callable[[int], None],
    ) -> None:
        self._shutdown_timeout = config.shutdown_timeout
        self._scoreboard = scoreboard
        self._models = models
        self._meter = meter
        self._listener = listener
        self._work = work
        self._workers: dict[int, int] = {}
        self._started = [0.0] * config.workers
        self._due = dict.fromkeys(range(config.workers), 0.0)
        self._failures = 0
        self._deadline: float | None = None

    def run(self) -> int:
        """Supervise until told to stop and all workers have ended; return the exit code."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        for handled in (*SIGNALS, signal.SIGCHLD):
            signal.signal(handled, _ignore)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while self._due or self._workers:
            pause = 0.0 if self._start_due() else _PAUSE
            if select.select([reader], [], [], pause)[0]:
                for number in reader.recv(1024):
                    self._obey(signal.Signals(number))
            self._reap()
            self._models.refresh()
            # Before a worker that a cut file has killed is started again with the same map.
            self._models.drop_overwritten()
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._send(signal.SIGKILL)
        return 1 if self._failures >= _ATTEMPTS else 0

    def _start_due(self) -> bool:
        """Start some of the workers that are due; return whether there are more."""
        now = time.monotonic()
        due = [number for number, since in self._due.items() if since <= now]
        for number in due[:_AT_ONCE]:
            del self._due[number]
            # Signals wait until the worker obeys them.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            pid = os.fork()
            if pid == 0:
                self._become(number)
            self._workers[pid] = number
            self._started[number] = now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return len(due) > _AT_ONCE

    def _become(self, number: int) -> None:
        """Be the worker from here to the end of this process."""
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

    def _obey(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._models.reload_all(self._meter)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._stop(signal.SIGTERM if number == signal.SIGTERM else signal.SIGQUIT)

    def _stop(self, number: signal.Signals) -> None:
        self._due.clear()
        self._listener.close()
        self._deadline = self._deadline or time.monotonic() + self._shutdown_timeout + _GRACE
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
            logger.error("worker %d (process %d) ended with %s", number, pid, _reason(status))
            self._failures = self._failures + 1 if now - self._started[number] < _PAUSE else 0
            if self._failures >= _ATTEMPTS:
                logger.critical("workers do not start: giving up")
                self._stop(signal.SIGTERM)
            else:
                self._scoreboard.count_restart()
                self._due[number] = now + (_PAUSE if self._failures else 0)


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the signal's number arrives through the wakeup descriptor."""


def _reason(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
