"""While replicas die, nodes leave and come, and files are replaced, no answer is wrong and none is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import threading
from pathlib import Path

import httpx
from ray.cluster_utils import Cluster

import smallfry
from tests.helpers.servers import write_sfq

REQUESTS = 10_000
CLIENTS = 8
PATIENCE = 300
OBJECT_STORE = 100 << 20


def expected(path: Path, queries: list[list[int]]) -> list[bytes]:
    store = smallfry.open(path)
    return [store.rows(query).tobytes() for query in queries]


def kill_a_replica(address: str) -> None:
    process = httpx.get(f"{address}/stats", timeout=30).json()["memory"]["processes"][0]
    os.kill(process["pid"], signal.SIGKILL)


def test_no_answer_is_wrong_or_lost(cluster: Cluster, address: str, vocabulary: Path, tmp_path: Path) -> None:
    queries = [[row, (7 * row) % 2000, 1999] for row in range(100)]
    new = write_sfq(tmp_path / "new.sfq", 2000, 50, 2, seed=1)
    right = {smallfry.open(path).digest: expected(path, queries) for path in (vocabulary, new)}
    seen: dict[str, int] = dict.fromkeys(right, 0)
    wrong: list[str] = []
    retried, asked = 0, 0

    async def ask(client: httpx.AsyncClient, number: int) -> bool:
        try:
            answer = await client.post("/lookup", json={"ids": queries[number]})
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            return False
        digest = answer.headers["x-smallfry-digest"]
        seen[digest] += 1
        if answer.content != right[digest][number]:
            wrong.append(f"query {number} of {digest}")
        return True

    async def client() -> None:
        nonlocal retried, asked
        headers = {"accept": "application/octet-stream"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as session:
            while asked < REQUESTS or not changed.is_set():
                with progress:
                    asked += 1
                    progress.notify_all()
                number = asked % len(queries)
                if not await ask(session, number):
                    retried += 1
                    await asyncio.sleep(1)
                    if not await ask(session, number):
                        wrong.append(f"query {number} was lost twice")

    async def clients() -> None:
        await asyncio.gather(*[client() for _ in range(CLIENTS)])

    def reached(count: int) -> None:
        with progress:
            assert progress.wait_for(lambda: asked >= count, PATIENCE), f"{asked} requests in {PATIENCE} s"

    progress = threading.Condition()
    changed = threading.Event()
    asking = threading.Thread(target=asyncio.run, args=(clients(),))
    asking.start()
    try:
        reached(500)
        kill_a_replica(address)
        reached(1500)
        shutil.copy(new, vocabulary.with_suffix(".tmp"))
        os.replace(vocabulary.with_suffix(".tmp"), vocabulary)
        reached(4000)
        # Ray starts and ends nodes from the main thread alone.
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        reached(6000)
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        reached(8000)
    finally:
        changed.set()
        asking.join()
    logging.getLogger(__name__).info("%d requests, %d asked again, answers by file: %s", asked, retried, seen)
    assert not wrong
    assert sum(seen.values()) >= REQUESTS
    assert min(seen.values()) > 0
