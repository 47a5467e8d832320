"""A server that sends scripted responses, valid or not."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

import numpy as np
from safetensors.numpy import save

from smallfry.client import Lookup

DIM = 4


class ScriptedServer:
    """Runs one step of its script for each request, on any connection.

    A step is bytes to send, or a function of the connection. ``Connection: close`` ends the connection.
    """

    def __init__(
        self, *script: bytes | Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self._script = list(script)
        self._context = context
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self._connections)

    def __enter__(self) -> "ScriptedServer":
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._secure(connection) as connection:
            while self._read(connection) and self._script:
                step = self._script.pop(0)
                if callable(step):
                    step(connection)
                else:
                    connection.sendall(step)
                    if b"\r\nConnection: close\r\n" in step:
                        return

    def _secure(self, connection: socket.socket) -> socket.socket:
        if self._context is None:
            return connection
        index = self._connections.index(connection)
        with connection:
            self._connections[index] = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return self._connections[index]

    def _read(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return True


def hang_up(connection: socket.socket) -> None:
    """Close the connection without a response."""
    connection.shutdown(socket.SHUT_RDWR)


def keep_silent(connection: socket.socket) -> None:
    """Send nothing until the client gives up."""
    connection.recv(1)


def response(
    body: bytes = b"{}", status: int = 200, content_type: str = "application/json", **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error_response(status: int, code: str = "some_code", **headers: str) -> bytes:
    body = b'{"error":{"message":"no","type":"t","param":"p","code":"%s"}}' % code.encode()
    return response(body, status, **headers)


def rows(*values: float, digest: str = "d0", model: str = "m") -> bytes:
    """Return the response to a lookup: one row per value, filled with it."""
    tensors = {
        "codes": np.repeat(np.array(values, np.float32)[:, None], DIM, axis=1),
        "found": np.ones(len(values), np.bool_),
    }
    body = save(tensors, {"model": model, "digest": digest, "dim": str(DIM), "nbit": "32"})
    return response(body, content_type="application/vnd.smallfry.packed")


def values(result: Lookup) -> list[float]:
    """Return the first value of each row."""
    return result.vectors[:, 0].tolist()
