"""The application without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from service.app import create_app
from service.config import Config
from service.server import Server


def test_lookup_works_under_a_root_path(files: dict[str, Path]) -> None:
    app = create_app(Server.open(Config(embeddings=(str(files["small"]),))))
    transport = httpx.ASGITransport(app, root_path="/prefix")

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/prefix/lookup", json={"tokens": ["the"]})

    assert asyncio.run(post()).status_code == 200
