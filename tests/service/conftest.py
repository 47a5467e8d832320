"""Servers and files that the tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Server, write_sfq


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write_sfq(folder / "small.sfq"),
        "large": write_sfq(folder / "large.sfq", 5000, 300, 2),
        "ids": write_sfq(folder / "ids.sfq", 50, 3, 8, tokens=False),
    }


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the session at the latest."""
    servers: list[Server] = []

    def starter(*arguments: str, **environ: str) -> Server:
        servers.append(Server(*arguments, **environ))
        return servers[-1]

    yield starter
    for server in servers:
        server.process.terminate()
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(files: dict[str, Path], start: Callable[..., Server]) -> Server:
    """One server over one vocabulary, shared by all tests that change nothing."""
    return start("--embeddings", str(files["small"]), "--port", "0")


@pytest.fixture(scope="session")
def several(files: dict[str, Path], start: Callable[..., Server]) -> Server:
    """One server over several vocabularies."""
    options = [option for name in files for option in ("--embeddings", f"{name}={files[name]}")]
    return start(*options, "--port", "0")
