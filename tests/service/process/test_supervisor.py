"""A server of several worker processes."""

import os
import resource
import signal
from pathlib import Path
from time import sleep

import httpx
import pytest

import smallfry
from tests.helpers.metrics import samples
from tests.helpers.servers import eventually, write_sfq

ADMIN = {"authorization": "Bearer the-admin-key"}
WORKERS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_sfq(folder / "a.sfq", 5000, 300, 2)
    return folder


@pytest.fixture(scope="module")
def team(folder, start):
    return start(folder, "--workers", str(WORKERS), SMALLFRY_ADMIN_KEY="the-admin-key")


@pytest.fixture
def connections(team):
    """Clients with one connection each, enough to reach every worker."""
    clients = [httpx.Client(base_url=team.address, timeout=30, verify=False) for _ in range(8 * WORKERS)]
    yield clients
    for client in clients:
        client.close()


def test_stats_and_metrics_cover_all_workers(team, connections):
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


def test_more_models_than_the_soft_limit_of_descriptors(start, tmp_path):
    write_sfq(tmp_path / "m0.sfq")
    for number in range(1, 1100):
        os.link(tmp_path / "m0.sfq", tmp_path / f"m{number}.sfq")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
    try:
        server = start(tmp_path, "--workers", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.lookup({"tokens": ["the"], "model": "m1099"}).status_code == 200
    stats = server.client.get("/stats").json()
    assert (stats["workers"], stats["failed"]) == (2, [])
    assert server.stop()[0] == 0


def test_workers_share_the_table_in_memory(team, folder):
    size = (folder / "a.sfq").stat().st_size
    processes = team.client.get("/stats").json()["memory"]["processes"]
    mapped = [Path(f"/proc/{process['pid']}/maps").read_text() for process in processes]
    assert all(str(folder / "a.sfq") in maps for maps in mapped)
    private = sorted(process["private"] for process in processes)
    assert private[1] < 40e6 + size


def test_every_worker_serves_a_changed_model_at_once(team, folder, connections):
    for turn, client in enumerate(connections):
        path = write_sfq(folder / "changing.new", seed=turn)
        os.replace(path, folder / "changing.sfq")
        digest = smallfry.open(folder / "changing.sfq").digest
        response = client.put("/models/changing", json={"path": "changing.sfq"}, headers=ADMIN)
        assert response.json()["digest"] == digest
        for other in connections:
            response = other.post("/lookup", json={"ids": [0], "model": "changing"})
            assert response.headers["x-smallfry-digest"] == digest
    connections[0].delete("/models/changing", headers=ADMIN)
    for client in connections:
        assert client.get("/models/changing").status_code == 404


def test_sighup_reloads_the_models_of_all_workers(team, folder, connections):
    def reloads():
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


def test_a_dead_worker_is_restarted_and_keeps_its_counts(team):
    def stats():
        with httpx.Client(base_url=team.address, timeout=30, verify=False) as client:
            return dict(client.get("/stats").json())

    assert team.lookup({"ids": [0], "model": "a"}).status_code == 200
    before = stats()
    processes = {process["pid"] for process in before["memory"]["processes"]} - {team.process.pid}
    victim = min(processes)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: stats_or_none(team, "worker_restarts") == before["worker_restarts"] + 1)
    eventually(lambda: len(stats()["memory"]["processes"]) == 1 + WORKERS)
    after = stats()
    assert victim not in {process["pid"] for process in after["memory"]["processes"]}
    assert after["tokens"]["found"] >= before["tokens"]["found"]


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A file whose content says how ``fork`` fails in servers: ``no process``, or ``dies`` at once."""
    path = tmp_path / "fork"
    path.write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import errno, os

def fork(real=os.fork):
    fault = open({str(path)!r}).read()
    if fault == "no process":
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    pid = real()
    if pid == 0 and fault == "dies":
        os._exit(3)
    return pid

os.fork = fork
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return path


@pytest.mark.parametrize("fault", ["no process", "dies"])
def test_a_worker_that_cannot_be_restarted_does_not_end_the_others(files, start, fork, fault):
    server = start(files["small"], "--workers", "2")
    eventually(lambda: len(workers_of(server)) == 2)
    fork.write_text(fault)
    victim = min(workers_of(server))
    os.kill(victim, signal.SIGKILL)
    # More starts than the failures after which a server without any worker gives up.
    eventually(lambda: victim not in workers_of(server), seconds=60)
    for _ in range(14):
        assert server.process.poll() is None
        assert httpx.post(f"{server.address}/lookup", json={"tokens": ["the"]}).status_code == 200
        sleep(0.5)
    fork.write_text("")
    eventually(lambda: len(workers_of(server)) == 2, seconds=60)
    code, log = server.stop()
    assert code == 0
    message = (
        "cannot be started: Resource temporarily unavailable" if fault == "no process" else "exit code 3"
    )
    assert log.count(message) >= 5 and "Traceback" not in log


@pytest.mark.parametrize("fault", ["no process", "dies"])
def test_a_server_without_any_worker_gives_up(files, start, fork, fault):
    fork.write_text(fault)
    server = start(files["small"], "--workers", "2")
    _, log = server.process.communicate(timeout=60)
    assert server.process.returncode == 1
    assert "starts of workers failed in a row, giving up" in log and "Traceback" not in log


def workers_of(server):
    """Return the processes of a server's workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return set(map(int, children.split()))


def stats_or_none(server, name):
    """Return a field of ``/stats``, or None if the connection was to the dead worker."""
    try:
        return httpx.get(f"{server.address}/stats", timeout=30).json()[name]
    except httpx.TransportError:
        return None


def test_request_ids_of_workers_differ(connections):
    ids = [client.get("/livez").headers["x-request-id"] for client in connections for _ in range(3)]
    assert len(set(ids)) == len(ids)
