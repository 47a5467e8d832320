"""Run the server: one worker in this process, or several under a supervisor."""

from __future__ import annotations

import gc
import json
import logging
import resource
import shlex
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from service.app import create_app
from service.config import Config
from service.errors import ConfigError
from service.models.examples import TEXTS
from service.models.registry import Models
from service.observability import logging as logs
from service.process.listener import check_tls, describe, listen
from service.process.supervisor import Supervisor
from service.process.worker import SIGNALS, Worker
from service.server import Server
from smallfry import __version__
from smallfry.store import Store

logger = logging.getLogger("smallfry.server")


def serve(config: Config, announce: Callable[[str], None]) -> int:
    """Open the models, listen, announce the banner, and serve until stopped; return the exit code.

    Raises
    ------
    ConfigError
        The server cannot listen on the address, no file can be served, or the options contradict each other.
    """
    logs.configure(config)
    # Each model and each connection takes a descriptor; a common soft limit is 1,024.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    check_tls(config)
    server = Server.open(config)
    app = create_app(server)
    spans = _exporting(server)
    # Signals are blocked until the worker or the supervisor has installed its handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        listener = listen(config)
    except ConfigError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise

    def work(number: int) -> None:
        server.scoreboard.register(number)
        server.meter.attach(server.scoreboard.block(number))
        worker = Worker(app, server, listener)
        with spans:
            worker.run([listener.socket])

    if not (server.keys.required or config.ssl_ca_certs or config.is_local):
        logger.warning(
            "listening on %s without keys: whoever reaches it can read all models; set --api-keys-file or "
            "SMALLFRY_API_KEYS, or listen on 127.0.0.1 (--host)",
            describe(config, listener),
        )
    announce(banner(server.models, describe(config, listener), server.keys.required))
    try:
        # Otherwise the garbage collector takes 40 ms at a time, and writes to every page that workers share.
        gc.collect()
        gc.freeze()
        if config.workers == 1:
            work(0)
            return 0
        server.meter.attach(server.scoreboard.block(config.workers))
        return Supervisor(server, listener, work).run()
    finally:
        gc.unfreeze()
        listener.close()


def banner(models: Models, address: str, needs_key: bool) -> str:
    """Return the models and their sizes, the address, and an example command."""
    lines = [f"smallfry-serve {__version__}"]
    for model in models.values():
        store = model.store
        bits = "1 bit" if store.nbit == 1 else f"{store.nbit} bits"
        lines.append(f"  {model.name}: {len(store):,} rows x {store.dim} at {bits}, {_compare(store)}")
    if models.failed:
        lines.append(f"  {len(models.failed)} cannot be served; see the log and /stats")
    lines.append(f"listening on {address}")
    first = next(iter(models.values()), None)
    if first is None:
        return "\n".join([*lines, "try: PUT /models/NAME, no model is loaded yet"])
    tokens = first.examples[:1]
    query: dict[str, object] = {"tokens": tokens} if tokens else {"ids": [0]}
    if first.store.has_tokenizer:
        query = {"texts": [TEXTS[0]]}
    if len(models) > 1:
        query["model"] = first.name
    data = shlex.quote(json.dumps(query))
    target = f"{address}/lookup"
    if address.startswith("unix:"):
        target = f"--unix-socket {shlex.quote(address.removeprefix('unix:'))} http://localhost/lookup"
    # By standard input, because other users see the arguments of a process.
    key, header = ('echo "authorization: Bearer $API_KEY" | ', " -H @-") if needs_key else ("", "")
    lines.append(f"try: {key}curl -s {target}{header} -H 'content-type: application/json' -d {data}")
    return "\n".join(lines)


def _compare(store: Store) -> str:
    """Return the size of a store next to what it replaces, which is not known of a tokenizer."""
    nbytes, replaced = store.nbytes, store.baseline_nbytes["total"]
    total = nbytes["total"]
    if store.has_tokenizer:
        return f"{_size(total)}, of which the tokenizer {_size(nbytes['tokenizer'])}"
    ratio, relation = (replaced / total, "less") if total < replaced else (total / replaced, "more")
    return f"{_size(total)} ({ratio:.1f}x {relation} than float32 and a dict: {_size(replaced)})"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _exporting(server: Server) -> AbstractContextManager[None]:
    if not server.config.tracing:
        return nullcontext()
    from service.observability import tracing

    return tracing.exporting(server.lifecycle.remaining)
