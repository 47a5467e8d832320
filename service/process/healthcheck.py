"""``python -m service.process.healthcheck``: exit with 0 if the server that the variables describe is ready.

The health check of the images. It imports neither NumPy nor the server, and uses no proxy.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from service.config import Config, load
from service.errors import ConfigError

_TIMEOUT = 2.0


def main() -> int:
    """Request ``/readyz``; return the exit code, and print why it is not 0."""
    try:
        config = load((), os.environ, "")
        connection = _connect(config)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (ConfigError, HTTPException, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if status != 200:
        sys.stderr.write(f"/readyz returned {status}\n")
    return int(status != 200)


def _connect(config: Config) -> HTTPConnection:
    """Return a connection to the server; its certificate, of another host name, is not verified."""
    host = "localhost" if config.host in ("0.0.0.0", "::") else config.host
    if config.ssl_certfile is not None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: HTTPConnection = HTTPSConnection(host, config.port, timeout=_TIMEOUT, context=context)
    else:
        connection = HTTPConnection(host, config.port, timeout=_TIMEOUT)
    if config.uds is not None:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_TIMEOUT)
        connection.sock.connect(config.uds)
    return connection


if __name__ == "__main__":
    sys.exit(main())
