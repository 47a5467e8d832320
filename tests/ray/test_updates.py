"""No response is wrong or lost while replicas die, nodes change and files are replaced."""

import asyncio
import logging
import os
import shutil
import signal
import threading

import httpx

import smallfry
from tests.helpers.servers import write_sfq

REQUESTS = 10_000
CLIENTS = 8
PATIENCE = 300
OBJECT_STORE = 100 << 20


def expected(path, queries):
    store = smallfry.open(path)
    return [store.rows(query).tobytes() for query in queries]


def kill_a_replica(address):
    process = httpx.get(f"{address}/stats", timeout=30).json()["memory"]["processes"][0]
    os.kill(process["pid"], signal.SIGKILL)


def test_no_response_is_wrong_or_lost(cluster, address, model, tmp_path):
    queries = [[row, (7 * row) % 2000, 1999] for row in range(100)]
    new = write_sfq(tmp_path / "new.sfq", 2000, 50, 2, seed=1)
    right = {smallfry.open(path).digest: expected(path, queries) for path in (model, new)}
    seen = dict.fromkeys(right, 0)
    wrong = []
    retried, sent = 0, 0

    async def post(client, number):
        try:
            response = await client.post("/lookup", json={"ids": queries[number]})
        except httpx.TransportError:
            return False
        if response.status_code != 200:
            return False
        digest = response.headers["x-smallfry-digest"]
        seen[digest] += 1
        if response.content != right[digest][number]:
            wrong.append(f"query {number} of {digest}")
        return True

    async def client():
        nonlocal retried, sent
        headers = {"accept": "application/octet-stream"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as session:
            while sent < REQUESTS or not changed.is_set():
                with progress:
                    sent += 1
                    progress.notify_all()
                number = sent % len(queries)
                if not await post(session, number):
                    retried += 1
                    await asyncio.sleep(1)
                    if not await post(session, number):
                        wrong.append(f"query {number} was lost twice")

    async def clients():
        await asyncio.gather(*[client() for _ in range(CLIENTS)])

    def reached(count):
        with progress:
            assert progress.wait_for(lambda: sent >= count, PATIENCE), f"{sent} requests in {PATIENCE} s"

    progress = threading.Condition()
    changed = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(clients(),))
    thread.start()
    try:
        reached(500)
        kill_a_replica(address)
        reached(1500)
        shutil.copy(new, model.with_suffix(".tmp"))
        os.replace(model.with_suffix(".tmp"), model)
        reached(4000)
        # Ray can only start and stop nodes from the main thread.
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        reached(6000)
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        reached(8000)
    finally:
        changed.set()
        thread.join()
    logging.getLogger(__name__).info("%d requests, %d retried, responses by file: %s", sent, retried, seen)
    assert not wrong
    assert sum(seen.values()) >= REQUESTS
    assert min(seen.values()) > 0
