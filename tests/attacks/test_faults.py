"""Faults of the machine: kill -9, full disks, cut files, exhausted memory and descriptors, clock jumps."""

import ast
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic

import httpx
import numpy as np
import pytest

import smallfry
from tests.helpers.servers import SlowRequest, eventually, write_sfq

ROOT = Path(__file__).resolve().parents[2]
WHOLE = {"tokens": ["the"], "model": "whole"}
RAW = "application/octet-stream"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
QUICK = ("--log-level", "critical")


def run(*arguments, limits=None):
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limits
    )


def test_killed_compression_leaves_the_old_or_the_new_file():
    ended = run("-m", "tests.stress.interruption", "--times", "20")
    assert ended.returncode == 0, ended.stdout


def test_full_disk_is_one_error_line_and_keeps_the_old_file(tmp_path):
    vectors, target = tmp_path / "vectors.npy", tmp_path / "table.sfq"
    np.save(vectors, np.random.default_rng(0).normal(size=(5000, 40)).astype(np.float32))
    target.write_bytes(b"old")

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    ended = run("-m", "smallfry", "compress", vectors, "-o", target, "--nbit", "2", limits=small_files)
    assert ended.returncode == 1
    assert ended.stderr.startswith("smallfry: error: ") and ended.stderr.count("\n") == 1
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["table.sfq", "vectors.npy"]


def test_unwritable_folder_is_one_error_line(tmp_path):
    np.save(tmp_path / "vectors.npy", np.eye(4, dtype=np.float32))
    ended = run("-m", "smallfry", "compress", tmp_path / "vectors.npy", "-o", "/proc/self/table.sfq")
    assert ended.returncode == 1
    assert ended.stderr.startswith("smallfry: error: ") and ended.stderr.count("\n") == 1


def test_removed_or_replaced_file_stays_served(tmp_path, start):
    path = write_sfq(tmp_path / "a.sfq", seed=1)
    expected = smallfry.open(path).lookup(["the"])[0].tobytes()
    server = start(path, *QUICK)

    def vector():
        return server.lookup({"tokens": ["the"]}, accept=RAW).content

    path.unlink()
    assert vector() == expected
    os.replace(write_sfq(tmp_path / "b.sfq", seed=2), path)
    assert vector() == expected
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: vector() != expected)


def test_truncated_file_is_withdrawn_and_kills_at_most_one_worker(tmp_path, start):
    cut = write_sfq(tmp_path / "cut.sfq", 50_000, 300, 8)
    write_sfq(tmp_path / "whole.sfq")
    server = start(tmp_path, "--workers", "2", *QUICK)
    os.truncate(cut, 8192)

    def status(model):
        try:
            return httpx.post(
                f"{server.address}/lookup", json={"ids": [49_999], "model": model}, timeout=30
            ).status_code
        except httpx.TransportError:
            return 0  # the worker read past the end and was killed by SIGBUS

    assert status("cut") in (0, 404)
    eventually(lambda: status("cut") == 404)
    eventually(lambda: httpx.post(f"{server.address}/lookup", json=WHOLE).status_code == 200)
    write_sfq(tmp_path / "new", 100, 300, 8)
    os.replace(tmp_path / "new", cut)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: status("cut") == 422)


def test_request_that_exceeds_the_memory_is_503_and_others_succeed(tmp_path, start):
    options = ("--max-body", str(1 << 28), "--max-batch-tokens", str(1 << 28))
    server = start(write_sfq(tmp_path / "whole.sfq"), *QUICK, *options)
    pid = server.process.pid
    mapped = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + (128 << 20)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    # The body of row numbers fits, but not next to the same numbers in 64 bits. A response is generated in
    # small pieces, so none exceeds the memory.
    response = server.client.post("/lookup", content=bytes(44 << 20), headers={"content-type": RAW})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "out_of_memory"
    assert server.lookup(WHOLE).status_code == 200


def test_server_recovers_from_exhausted_descriptors(tmp_path, start):
    path = write_sfq(tmp_path / "a.sfq")
    server = start(path, *QUICK, "--request-timeout", "1")
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    host, port = server.address.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), timeout=30) for _ in range(100)]
    assert server.process.poll() is None
    eventually(lambda: is_served(server))
    for client in idle:
        client.close()
    assert server.lookup({"tokens": ["the"]}).status_code == 200


def is_served(server):
    try:
        return httpx.get(f"{server.address}/livez", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_killed_worker_loses_only_its_inflight_requests(tmp_path, start):
    path = write_sfq(tmp_path / "a.sfq", 500, 20)
    store = smallfry.open(path)
    server = start(path, "--workers", "2", *QUICK)
    clients, kills = 4, 3
    wrong, lost, right = [], [0] * clients, [0] * clients
    ended = threading.Event()

    def send(number):
        ids = [number, 100 + number]
        expected = store.rows(ids).tobytes()
        while not ended.is_set():
            with httpx.Client(base_url=server.address, timeout=30) as client:
                try:
                    while not ended.is_set():
                        response = client.post("/lookup", json={"ids": ids}, headers={"accept": RAW})
                        right[number] += response.content == expected
                        if response.content != expected:
                            wrong.append(response.content)
                except httpx.TransportError:
                    lost[number] += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for kill in range(kills):
        before = sum(right)
        eventually(lambda before=before: sum(right) > before + 50)
        os.kill(workers(server)[0], signal.SIGKILL)
        eventually(lambda kill=kill: restarts(server) == kill + 1)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    # A killed worker loses at most one request per client.
    assert sum(lost) <= kills * clients


def workers(server):
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def restarts(server):
    try:
        return int(httpx.get(f"{server.address}/stats", timeout=30).json()["worker_restarts"])
    except httpx.TransportError:
        return -1


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_clock_jump_changes_no_response_and_no_timeout(start, tmp_path):
    write_sfq(tmp_path / "small.sfq")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    server = start(
        tmp_path / "small.sfq",
        *("--request-timeout", "0.5"),
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )

    def days():
        shown = parsedate_to_datetime(server.client.get("/livez").headers["date"])
        return (shown - datetime.now(timezone.utc)).total_seconds() / 86400

    for jump in (1, -1, 3650, -3650, 0):
        slow, begun = SlowRequest(server), monotonic()
        clock.write_text(f"{jump:+d}d")
        response = server.lookup({"tokens": ["the", "?"]})
        assert response.json()["found"] == [True, False]
        assert slow.read().startswith(b"HTTP/1.1 408 ")
        slow.close()
        assert 0.4 < monotonic() - begun < 15
        eventually(lambda expected=jump: round(days()) == expected)
        assert server.client.get("/readyz").status_code == 200


def test_no_timer_reads_the_wall_clock():
    # Times shown to users: when a file was opened, metrics were sampled, a request began.
    shown = {
        f"service/{name}.py" for name in ("models/model", "observability/history", "observability/tracing")
    }
    for path in sorted((ROOT / "service").rglob("*.py")):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime")
            for alias in node.names
        }
        if path.relative_to(ROOT).as_posix() not in shown:
            assert names <= {"monotonic", "perf_counter", "perf_counter_ns"}, path
        assert "time.time" not in path.read_text()
