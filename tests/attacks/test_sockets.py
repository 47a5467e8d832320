"""Whatever a hostile client sends, the server does not fail, and it continues to serve honest clients."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.attacks.sockets import ATTACKS, MAX_BODY, Target, is_fault, write_models
from tests.helpers.servers import eventually

PATIENCE = 1.0
#: Bytes by which the server may have grown at the end: fragments, too small to return to the system, of
#: requests with many fields or JSON lists. Three rounds of all attacks leave 35, 40 and 40 MB, so they are no
#: leak. The attacks hold gigabytes, so one would show.
GROWTH = 48 << 20
#: Seconds that a small lookup may take during an attack, on any machine.
SLOWEST = 5.0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("attacked")
    write_models(folder)
    server = start(
        folder,
        *("--log-level", "error", "--max-body", str(MAX_BODY)),
        *("--request-timeout", str(PATIENCE), "--max-queue", "1000"),
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
def test_hostile_client_causes_no_fault_and_honest_ones_are_served(attacked, name):
    host, port = attacked.address.removeprefix("http://").split(":")
    target = Target(host, int(port), 1, PATIENCE)

    async def attack_and_serve():
        attack = asyncio.ensure_future(ATTACKS[name](target))
        async with httpx.AsyncClient(base_url=attacked.address, timeout=30) as client:
            while not attack.done():
                response = await client.post("/lookup", json={"tokens": ["word-0"], "model": "small"})
                assert response.json()["found"] == [True]
                assert response.elapsed.total_seconds() < SLOWEST
                await asyncio.wait((attack,), timeout=0.02)
        return dict(attack.result())

    statuses = asyncio.run(attack_and_serve())
    assert -1 not in statuses
    assert not any(map(is_fault, statuses))
    honest(attacked)


def honest(server):
    response = server.lookup({"tokens": ["word-0", "?"], "model": "small"})
    assert response.json()["found"] == [True, False]


def private(server):
    """Return the memory that is not that of mapped files."""
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))
