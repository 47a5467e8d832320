"""The application without a server."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.config import Config
from service.ray.multiplexing import ModelCache
from service.ray.sources import RemoteSources
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


@pytest.fixture(scope="module", params=["removed", "kept"])
def prefixed(request, files, start):
    """Return a function that sends a request behind a proxy with a prefix, which the proxy removes or not."""
    server = start(files["small"], "--root-path", "/emb")
    prefix = "/emb" if request.param == "kept" else ""
    return lambda method, path, **options: server.client.request(method, prefix + path, **options)


def test_routes_below_the_prefix_of_a_proxy(prefixed):
    assert prefixed("POST", "/lookup", json={"tokens": ["the"]}).json()["found"] == [True]
    assert prefixed("GET", "/models/small").json()["name"] == "small"
    assert prefixed("GET", "/openapi.json").json()["servers"] == [{"url": "/emb"}]
    assert prefixed("GET", "/docs").headers["content-type"].startswith("text/html")
    assert prefixed("GET", "/dashboard/page.js").status_code == 200
    assert prefixed("GET", "/", headers={"accept": "text/html"}).status_code == 200
    assert prefixed("DELETE", "/lookup").headers["allow"] == "POST"
    assert prefixed("GET", "/nothing").status_code == 404


def test_pages_have_only_relative_links(prefixed):
    for path in ("/", "/docs"):
        page = prefixed("GET", path, headers={"accept": "text/html"}).text
        links = re.findall(r'(?:href|src)="([^"]*)"', page)
        assert links and not any(link.startswith(("/", "http")) for link in links)


def test_a_path_that_only_begins_like_the_prefix_is_not_below_it(files, start):
    server = start(files["small"], "--root-path", "/look")
    assert server.lookup({"tokens": ["the"]}).status_code == 200


def test_keys_protect_routes_below_a_prefix(files, start):
    server = start(files["small"], "--root-path", "/emb", SMALLFRY_API_KEYS="key")
    for path in ("/models", "/emb/models"):
        assert server.client.get(path).status_code == 401
        assert server.client.get(path, headers={"x-api-key": "key"}).status_code == 200
    assert server.client.get("/emb/livez").status_code == 200


def test_models_that_are_not_open_are_listed(files: dict[str, Path]) -> None:
    sources = RemoteSources([f"{name}={path}" for name, path in files.items()])
    server = Server.open(Config(), lambda scoreboard: ModelCache(sources, scoreboard))
    transport = httpx.ASGITransport(create_app(server))

    async def get(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    listed = asyncio.run(get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == list(files)
    assert asyncio.run(get("/v1/models/large")).json() in listed
    assert not server.models
