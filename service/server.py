"""Running the server: its socket, its processes and the signals that they obey."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import stat
from collections.abc import Callable

import uvicorn

from service.app import create_app
from service.config import Config
from service.errors import ConfigError
from service.models import Models
from service.stats import model_bytes
from smallfry import __version__


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
    models = Models.open(config.embeddings)
    listener = listen(config)
    address = describe(config, listener)
    announce(banner(models, address))
    app = create_app(config, models, lambda: [os.getpid()])
    options = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level=config.log_level,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(config.shutdown_timeout)),
    )
    uvicorn.Server(options).run(sockets=[listener])
    return 0


def listen(config: Config) -> socket.socket:
    """Bind the server's socket.

    Raises
    ------
    ConfigError
        The address is in use, or is none of this machine.
    """
    if config.uds is not None:
        return _listen_unix(config.uds)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise ConfigError(_refused(f"{config.host}:{config.port}", error)) from None
    return listener


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(2048)
    except OSError as error:
        raise ConfigError(_refused(path, error)) from None
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def _refused(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is already in use; stop the server there or choose another --port or --uds"
    return f"cannot listen on {address}: {error.strerror or error}"


def describe(config: Config, listener: socket.socket) -> str:
    """Return the URL of the server, or ``unix:`` and the path of its socket."""
    if config.uds is not None:
        return f"unix:{config.uds}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def banner(models: Models, address: str) -> str:
    """Return what is printed on start: what is served, what it takes, and a command to try."""
    lines = [f"smallfry-serve {__version__}"]
    for model in models.values():
        usage = model_bytes(model)
        total, replaced = usage.bytes["total"], usage.float32_bytes + usage.dict_bytes
        lines.append(
            f"  {model.name}: {usage.rows:,} rows x {usage.dim} at {usage.nbit} bits, {_size(total)} "
            f"({replaced / total:.1f}x less than float32 and a dict: {_size(replaced)})"
        )
    first = next(iter(models.values()))
    query: dict[str, object] = {"tokens": [first.store.token(0)]} if first.store.vocabulary else {"ids": [0]}
    if len(models) > 1:
        query["model"] = first.name
    data = shlex.quote(json.dumps(query, ensure_ascii=False))
    path = address.removeprefix("unix:")
    target = (
        f"{address}/lookup"
        if path == address
        else f"--unix-socket {shlex.quote(path)} http://localhost/lookup"
    )
    lines.append(f"listening on {address}")
    lines.append(f"try: curl -s {target} -H 'content-type: application/json' -d {data}")
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
