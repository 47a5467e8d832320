"""Servers, files and clients that the tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smallfry.client import Client
from tests.helpers.clients import CLIENTS
from tests.helpers.servers import Server, write_sfq


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write_sfq(folder / "small.sfq"),
        "wide": write_sfq(folder / "wide.sfq", 2000, 300, 2, seed=1),
        "deep": write_sfq(folder / "deep.sfq", 300, 40, 16, seed=2),
    }


@pytest.fixture(scope="session")
def servers(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One server on a port and one on a socket, with the same models."""
    socket = tmp_path_factory.mktemp("socket") / "s"
    running = {
        "http": Server(*files.values(), "--max-batch-tokens", "1000"),
        "unix": Server(*files.values(), "--uds", str(socket), "--max-batch-tokens", "1000"),
    }
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture(params=["http", "unix"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


@pytest.fixture(params=list(CLIENTS))
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Make clients of one of the two kinds, which end with the test."""
    made = []

    def maker(*arguments: Any, **options: Any) -> Any:
        made.append(CLIENTS[request.param](*arguments, **options))
        return made[-1]

    yield maker
    for client in made:
        client.close()
