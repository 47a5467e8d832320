"""A server that reads a request and sends prepared bytes: the cost of serving without a lookup.

``python -m benchmarks.server.echo FOLDER PORT`` serves ``FOLDER/N`` under ``/N``, with the headers of a
packed response and the options of ``smallfry-serve``. A path instead of PORT is a unix socket.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send


class Echo:
    """The ASGI application."""

    def __init__(self, folder: Path) -> None:
        self._bodies = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body of the path."""
        while (await receive()).get("more_body"):
            pass
        body = self._bodies[scope["path"]]
        headers = [
            (b"content-type", b"application/vnd.smallfry.packed"),
            (b"vary", b"accept"),
            (b"x-smallfry-digest", b"0" * 64),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", b"0123456789ab-1"),
            (b"server-timing", b"parse;dur=0.001, find;dur=0.001, encode;dur=0.001, total;dur=0.003"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main(folder: str, address: str) -> None:
    """Serve until terminated."""
    where: dict[str, Any] = {"port": int(address)} if address.isdecimal() else {"uds": address}
    uvicorn.run(
        Echo(Path(folder)),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=600,
        **where,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
