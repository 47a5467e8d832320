"""Servers, files and clients that the tests share."""

import random
import time

import pytest

from tests.helpers.clients import CLIENTS
from tests.helpers.servers import Server, write_sfq


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write_sfq(folder / "small.sfq"),
        "wide": write_sfq(folder / "wide.sfq", 2000, 300, 2, seed=1),
        "deep": write_sfq(folder / "deep.sfq", 300, 40, 16, seed=2),
    }


@pytest.fixture(scope="session")
def servers(files, tmp_path_factory):
    """One server on a port and one on a socket, with the same models."""
    socket = tmp_path_factory.mktemp("socket") / "s"
    running = {
        "http": Server(*files.values(), "--max-batch-tokens", "1000", forked=True),
        "unix": Server(*files.values(), "--uds", str(socket), "--max-batch-tokens", "1000", forked=True),
    }
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture(params=["http", "unix"])
def server(request, servers):
    return servers[request.param]


@pytest.fixture(params=list(CLIENTS))
def connect(request):
    """Make clients of one of the two kinds, which end with the test."""
    made = []

    def maker(*arguments, **options):
        made.append(CLIENTS[request.param](*arguments, **options))
        return made[-1]

    yield maker
    for client in made:
        client.close()


@pytest.fixture
def pauses(monkeypatch):
    """Record the pauses of clients instead of sleeping."""
    made = []

    async def note(seconds, *rest):
        made.append(seconds)

    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr("smallfry.client.client.asyncio.sleep", note)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return made
