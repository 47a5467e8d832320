"""What one client can cost: time of the event loop per byte, and memory of 300 connections."""

import pytest

from tests.attacks.costly import COSTLY, HELD
from tests.attacks.measuring import (
    MEMORY,
    PER_BYTE,
    WAIT,
    measure_cost,
    measure_memory,
)
from tests.attacks.sockets import write_models
from tests.attacks.test_sockets import honest, private
from tests.helpers.metrics import gauge
from tests.helpers.servers import eventually

#: Microseconds of event loop for connections, first requests and periodic tasks, per request sent.
FIRST = 10_000
#: Factor by which a measurement on a busy machine may exceed a bound of time.
SLACK = 4

#: Kinds of connections that differ; ``tests/stress/bounds.py`` measures all.
KINDS = (
    *("head of tiny fields", "head of a long field", "body, 100 KB", "body, 2 MB", "body, 2 MB in chunks"),
    *("body of a GET", "trailers", "pipelined, bodies", "pipelined, large response", "large bodies"),
    *("unread: JSON", "unread: raw", "unread: packed", "unread: embeddings", "unread: /models/large/file"),
    *("unread: /openapi.json", "unread: errors"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bounds")
    write_models(path)
    return path


@pytest.fixture(scope="module")
def measured(folder, start):
    return begin(folder, start)


def begin(folder, start):
    """Return a new server, its port, and its memory before it is attacked."""
    server = start(folder, "--log-level", "error")
    honest(server)
    return server, int(server.address.rpartition(":")[2]), private(server)


@pytest.mark.parametrize("name", COSTLY)
def test_request_costs_little_time_per_byte_and_does_not_block_lookups(measured, name):
    server, port, _ = measured
    cost = measure_cost(server.process.pid, port, COSTLY[name], seconds=0)
    assert cost.per_byte * cost.sent < SLACK * PER_BYTE * cost.sent + FIRST
    assert cost.wait < SLACK * WAIT


@pytest.mark.parametrize("name", KINDS)
def test_300_connections_take_little_memory_and_no_slot_of_small_lookups(folder, start, name):
    # A new server: the fragments that other kinds leave would count.
    server, port, idle = begin(folder, start)
    assert measure_memory(server.process.pid, port, HELD[name], 0.3) < idle + MEMORY
    for _ in range(20):
        honest(server)
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 1)
    server.stop()
