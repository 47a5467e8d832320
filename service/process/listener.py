"""The listening socket of the server, and its TLS files."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from contextlib import suppress
from typing import Any

from service.config import Config
from service.errors import ConfigError

BACKLOG = 2048


class Listener:
    """The listening socket and, if it is a Unix socket, its file.

    Attributes
    ----------
    socket : socket.socket
    """

    def __init__(self, bound: socket.socket, path: str | None = None) -> None:
        self.socket = bound
        self._path = path
        self._file = path and _identify(path)

    def unlink(self) -> None:
        """Remove the file of the socket, unless another server has put its own in place.

        Clients that have connected are still accepted. The inode number may be used again once all processes
        have closed the socket.
        """
        with suppress(FileNotFoundError):
            if self._path is not None and _identify(self._path) == self._file:
                os.unlink(self._path)

    def close(self) -> None:
        """Stop listening in this process, and remove the file if no process listens on it."""
        self.socket.close()
        with suppress(OSError):
            if self._path is not None and not _is_in_use(self._path):
                self.unlink()


def listen(config: Config) -> Listener:
    """Bind the server's socket; raise `ConfigError` if the address is in use or not of this machine."""
    host, port = config.host, config.port
    try:
        if config.uds is not None:
            return _listen_unix(config.uds, int(config.uds_mode, 8))
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return Listener(_bind(socket.socket(family), address))
    except OSError as error:
        where = config.uds or f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            problem = f"{where} is already in use; stop the server there or choose another --port or --uds"
        else:
            problem = f"cannot listen on {where}: {error.strerror or error}"
        raise ConfigError(problem) from None


def _listen_unix(path: str, mode: int) -> Listener:
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigError(f"{path} exists and is not a socket; remove it or choose another --uds")
        if not _is_in_use(path):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    # The file gets the mode of the socket without the bits of the umask, hence never a wider one.
    os.fchmod(listener.fileno(), mode)
    umask = os.umask(0)
    try:
        return Listener(_bind(listener, path), path)
    finally:
        os.umask(umask)


def _identify(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _bind(listener: socket.socket, address: Any) -> socket.socket:  # noqa: ANN401 - depends on the family
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_in_use(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def describe(config: Config, listener: Listener) -> str:
    """Return the URL of the server, or ``unix:PATH``."""
    if config.uds is not None:
        return f"unix:{config.uds}"
    scheme = "http" if config.ssl_certfile is None else "https"
    host, port = listener.socket.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_tls(config: Config) -> None:
    """Raise `ConfigError` if the certificate and key cannot be read, do not match, or one is missing."""
    if config.ssl_certfile is None:
        if config.ssl_keyfile or config.ssl_ca_certs or config.ssl_keyfile_password:
            raise ConfigError(
                "--ssl-keyfile, --ssl-ca-certs and SMALLFRY_SSL_KEYFILE_PASSWORD need --ssl-certfile; "
                "without it, the server would not encrypt"
            )
        return
    path = config.ssl_certfile
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without a password OpenSSL would prompt for one.
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password or "")
        if config.ssl_ca_certs is not None:
            path = config.ssl_ca_certs
            context.load_verify_locations(config.ssl_ca_certs)
    except OSError as error:
        raise ConfigError(f"cannot load {path}: {error.strerror or error}") from None
