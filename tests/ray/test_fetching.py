"""Replicas that download their models from another server, and follow its changes."""

import os
import threading

import httpx
from ray import serve

import smallfry
from tests.helpers.ray_cluster import deploy_config, reports
from tests.helpers.servers import write_sfq


def pids():
    return {process.pid for stats in reports() for process in stats.memory.processes}


def test_a_new_file_is_adopted_without_a_failed_request(proxy, start, tmp_path):
    (tmp_path / "origin").mkdir()
    path = write_sfq(tmp_path / "origin" / "words.sfq", 2000, 50, 2)
    origin = start(path, SMALLFRY_ADMIN_KEY="key")
    source, cache = f"words={origin.address}", tmp_path / "cache"
    deploy_config({"embeddings": [source]}, cache=str(cache))
    running, old = pids(), smallfry.open(path).digest
    assert [file.name for file in cache.glob("*.sfq")] == [f"{old}.sfq"]

    os.replace(write_sfq(tmp_path / "new.sfq", 2000, 50, 2, seed=1), path)
    reloaded = origin.client.post("/models/words/reload", headers={"x-api-key": "key"})
    assert reloaded.status_code == 200
    new = smallfry.open(path).digest
    responses = []
    done = threading.Event()

    def post():
        with httpx.Client(base_url=proxy, timeout=60) as client:
            while not done.is_set():
                response = client.post("/lookup", json={"ids": [1, 2, 3]})
                responses.append((response.status_code, response.headers.get("x-smallfry-digest", "")))

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        deploy_config({"embeddings": [source], "vocabulary": 2}, cache=str(cache))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in responses} == {200}
    assert {digest for _, digest in responses} <= {old, new}
    assert pids() == running
    for _ in range(8):
        response = httpx.post(f"{proxy}/lookup", json={"ids": [1]}, timeout=30)
        assert response.headers["x-smallfry-digest"] == new
    assert sorted(file.name for file in cache.glob("*.sfq")) == sorted([f"{old}.sfq", f"{new}.sfq"])
    serve.delete("smallfry")


def test_a_failed_download_keeps_the_served_models(proxy, start, tmp_path):
    path = write_sfq(tmp_path / "words.sfq", 2000, 50, 2)
    origin = start(path)
    source = f"words={origin.address}"
    deploy_config({"embeddings": [source]}, cache=str(tmp_path / "cache"))
    running = pids()
    origin.stop()
    deploy_config({"embeddings": [source, "more=http://127.0.0.1:9"]}, cache=str(tmp_path / "cache"))
    assert pids() == running
    for _ in range(8):
        assert httpx.post(f"{proxy}/lookup", json={"ids": [1]}, timeout=30).status_code == 200
    serve.delete("smallfry")
