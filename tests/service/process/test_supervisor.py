"""Several processes that are one server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import smallfry
from tests.helpers.metrics import samples
from tests.helpers.servers import Server, eventually, write_sfq

Start = Callable[..., Server]
ADMIN = {"authorization": "Bearer the-admin-key"}
WORKERS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    write_sfq(folder / "a.sfq", 5000, 300, 2)
    return folder


@pytest.fixture(scope="module")
def team(folder: Path, start: Start) -> Server:
    options = ("--embeddings", str(folder), "--port", "0", "--workers", str(WORKERS))
    return start(*options, SMALLFRY_ADMIN_KEY="the-admin-key")


@pytest.fixture
def connections(team: Server) -> Iterator[list[httpx.Client]]:
    """Clients of one connection each, enough to reach every worker."""
    clients = [httpx.Client(base_url=team.address, timeout=30, verify=False) for _ in range(8 * WORKERS)]
    yield clients
    for client in clients:
        client.close()


def test_figures_are_those_of_the_whole_server(team: Server, connections: list[httpx.Client]) -> None:
    before = team.client.get("/stats").json()
    for client in connections:
        assert client.post("/lookup", json={"tokens": ["the", "?"], "model": "a"}).status_code == 200
    for client in connections:
        stats = client.get("/stats").json()
        assert stats["workers"] == WORKERS
        assert len(stats["memory"]["processes"]) == 1 + WORKERS
        for result in ("found", "unknown"):
            counted = stats["tokens"][result] - before["tokens"].get(result, 0)
            assert counted == len(connections)
        assert samples(client.get("/metrics").text)["smallfry_workers"] == {(): WORKERS}


def test_the_table_is_in_memory_once(team: Server, folder: Path) -> None:
    size = (folder / "a.sfq").stat().st_size
    processes = team.client.get("/stats").json()["memory"]["processes"]
    mapped = [Path(f"/proc/{process['pid']}/maps").read_text() for process in processes]
    assert all(str(folder / "a.sfq") in maps for maps in mapped)
    private = sorted(process["private"] for process in processes)
    assert private[1] < 40e6 + size


def test_a_change_is_seen_by_the_next_request_whoever_answers(
    team: Server, folder: Path, connections: list[httpx.Client]
) -> None:
    for turn, client in enumerate(connections):
        path = write_sfq(folder / "changing.new", seed=turn)
        os.replace(path, folder / "changing.sfq")
        digest = smallfry.open(folder / "changing.sfq").digest
        answer = client.put("/models/changing", json={"path": "changing.sfq"}, headers=ADMIN)
        assert answer.json()["digest"] == digest
        for other in connections:
            answer = other.post("/lookup", json={"ids": [0], "model": "changing"})
            assert answer.headers["x-smallfry-digest"] == digest
    connections[0].delete("/models/changing", headers=ADMIN)
    for client in connections:
        assert client.get("/models/changing").status_code == 404


def test_sighup_to_the_parent_reloads_in_all(
    team: Server, folder: Path, connections: list[httpx.Client]
) -> None:
    def reloads() -> dict[tuple[str, ...], float]:
        return samples(team.client.get("/metrics").text)["smallfry_reloads_total"]

    before = reloads()
    write_sfq(folder / "late.sfq")
    (folder / "broken.sfq").write_bytes(b"nonsense")
    team.process.send_signal(signal.SIGHUP)
    eventually(lambda: team.client.get("/models/late").status_code == 200)
    assert all(client.get("/models/late").status_code == 200 for client in connections)
    after = reloads()
    assert after["failure",] == before["failure",] + 1
    assert after["success",] >= before["success",] + 2
    (folder / "broken.sfq").unlink()


def test_a_worker_that_dies_is_replaced_and_its_counts_stay(team: Server) -> None:
    def stats() -> dict[str, int]:
        with httpx.Client(base_url=team.address, timeout=30, verify=False) as client:
            return dict(client.get("/stats").json())

    before = stats()
    processes = {process["pid"] for process in before["memory"]["processes"]} - {team.process.pid}
    victim = min(processes)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: stats_or_none(team, "worker_restarts") == before["worker_restarts"] + 1)
    eventually(lambda: len(stats()["memory"]["processes"]) == 1 + WORKERS)
    after = stats()
    assert victim not in {process["pid"] for process in after["memory"]["processes"]}
    assert after["tokens"]["found"] >= before["tokens"]["found"]


def stats_or_none(server: Server, name: str) -> object:
    """A field of the figures; a connection to the worker that died may break."""
    try:
        return httpx.get(f"{server.address}/stats", timeout=30).json()[name]
    except httpx.TransportError:
        return None


def test_request_numbers_of_workers_differ(connections: list[httpx.Client]) -> None:
    numbers = [client.get("/livez").headers["x-request-id"] for client in connections for _ in range(3)]
    assert len(set(numbers)) == len(numbers)
