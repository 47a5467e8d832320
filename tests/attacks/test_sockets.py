"""What a hostile client sends is refused or answered, and honest clients are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from serving import Server, eventually, write_sfq
from sockets import ATTACKS, MAX_BODY, Target

Start = Callable[..., Server]
PATIENCE = 1.0
#: Bytes that the server may have grown by in the end: what is in pieces too small to give back, of requests
#: of a million JSON lists or so. The attacks hold gigabytes, so that a leak would show.
GROWTH = 32 << 20
#: What a client may be told that has not been wronged.
ALLOWED = {0, 200, 206, 304, *range(400, 500)}


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("besieged")
    write_sfq(folder / "small.sfq")
    write_sfq(folder / "large.sfq", 5000, 300, 2)
    server = start(
        *("--embeddings", str(folder), "--port", "0", "--log-level", "error"),
        *("--request-timeout", str(PATIENCE), "--max-queue", "1000", "--max-body", str(MAX_BODY)),
        SMALLFRY_ADMIN_KEY="the-admin-key",
    )
    honest(server)
    before = private(server)
    yield server
    eventually(lambda: private(server) < before + GROWTH, 30)
    code, log = server.stop()
    assert code == 0
    assert log == ""


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_client_gets_no_fault_and_others_are_served(besieged: Server, name: str) -> None:
    host, port = besieged.address.removeprefix("http://").split(":")
    target = Target(host, int(port), 1, PATIENCE)

    async def besiege() -> dict[int, int]:
        attack = asyncio.ensure_future(ATTACKS[name](target))
        async with httpx.AsyncClient(base_url=besieged.address, timeout=30) as client:
            while not attack.done():
                answer = await client.post("/lookup", json={"tokens": ["the"], "model": "small"})
                assert answer.json()["found"] == [True]
                await asyncio.wait((attack,), timeout=0.02)
        return dict(attack.result())

    statuses = asyncio.run(besiege())
    assert statuses.keys() <= ALLOWED
    honest(besieged)


def honest(server: Server) -> None:
    answer = server.lookup({"tokens": ["the", "?"], "model": "small"})
    assert answer.json()["found"] == [True, False]


def private(server: Server) -> int:
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
