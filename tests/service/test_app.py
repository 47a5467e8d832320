"""The application without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.config import Config
from service.server import Server


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [("", "/lookup", 200), ("/prefix", "/prefix/lookup", 200), ("", "/lookup%0A", 404)],
)
def test_lookup_has_one_path_below_the_root_path(
    files: dict[str, Path], root_path: str, path: str, status: int
) -> None:
    app = create_app(Server.open(Config(embeddings=(str(files["small"]),))))
    transport = httpx.ASGITransport(app, root_path=root_path)

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json={"tokens": ["the"]})

    assert asyncio.run(post()).status_code == status
