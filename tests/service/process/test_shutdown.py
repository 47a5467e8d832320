"""Graceful shutdown."""

import signal
from pathlib import Path
from time import monotonic

import pytest

from service.config import Config
from tests.helpers.errors import error_of
from tests.helpers.metrics import gauge
from tests.helpers.servers import SlowRequest, eventually


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_fails_readiness_then_drains_accepted_requests(files, start, workers):
    server = start(files["small"], "--workers", workers, "--drain-delay", "60", "--shutdown-timeout", "90")
    slow = SlowRequest(server)
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.client.get("/readyz").status_code == 503)
    assert error_of(server.client.get("/readyz"), 503)["code"] == "unavailable"
    assert server.client.get("/livez").status_code == 200
    assert server.lookup({"tokens": ["the"]}).status_code == 200
    assert b" 200 OK" in slow.finish()
    slow.close()
    code, log = server.stop()
    assert code == 0
    assert "Traceback" not in log


def test_shutdown_does_not_wait_for_a_stalled_request(files, start):
    server = start(files["small"], "--shutdown-timeout", "1")
    slow = SlowRequest(server)
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    begin = monotonic()
    code, _ = server.stop()
    assert code == 0
    assert monotonic() - begin < 5
    assert b" 503 " in slow.read()
    slow.close()


@pytest.mark.parametrize("workers", ["1", "4"])
def test_the_default_shutdown_takes_less_than_the_ten_seconds_of_docker(files, start, workers):
    delay = str(Config().drain_delay)
    server = start(files["small"], "--workers", workers, "--drain-delay", delay)
    stalled = [SlowRequest(server) for _ in range(8)]
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == len(stalled) + 1)
    begin = monotonic()
    code, log = server.stop()
    assert code == 0
    assert 2 < monotonic() - begin < 10, log
    for slow in stalled:
        assert b" 503 " in slow.read()
        slow.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigint_stops_without_drain_delay(files, start, workers):
    server = start(files["small"], "--workers", workers, "--drain-delay", "60", "--shutdown-timeout", "90")
    processes = server.client.get("/stats").json()["memory"]["processes"]
    server.client.close()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 0
    assert not [process for process in processes if Path(f"/proc/{process['pid']}").exists()]
