"""Requests beyond the capacity of replicas and queue are rejected in the form of the server."""

import socket
from contextlib import ExitStack

import httpx
import pytest
from ray import serve

from tests.helpers.ray_cluster import deploy
from tests.helpers.servers import eventually

PREFIX = "/narrow"


@pytest.fixture(scope="module")
def narrow(proxy, model):
    """Return the address of a replica that takes one request, with a queue of one."""
    limits = {"num_replicas": 1, "max_ongoing_requests": 1, "max_queued_requests": 1}
    deploy([str(model)], name="narrow", prefix=PREFIX, ray_actor_options={"num_cpus": 0}, **limits)
    yield proxy
    serve.delete("narrow")


def test_excess_requests_are_rejected_with_retry_after(narrow):
    host, port = narrow.removeprefix("http://").split(":")
    head = f"POST {PREFIX}/lookup HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    rejected = []

    def is_rejected():
        with ExitStack() as stack:
            # Incomplete bodies: the first occupies the replica, the second the queue.
            for _ in range(3):
                slow = stack.enter_context(socket.create_connection((host, int(port))))
                slow.sendall(f"{head}content-length: 99\r\n\r\n".encode())
            try:
                response = httpx.post(f"{narrow}{PREFIX}/lookup", json={"tokens": ["the"]}, timeout=2)
            except httpx.TimeoutException:
                return False
        rejected.append(response)
        return response.status_code == 429

    eventually(is_rejected, 60)
    assert rejected[-1].headers["retry-after"] == "1"
    assert rejected[-1].json()["error"]["code"] == "queue_full"
    assert rejected[-1].json()["error"]["type"] == "rate_limit_error"

    def is_served():
        return httpx.post(f"{narrow}{PREFIX}/lookup", json={"tokens": ["the"]}, timeout=60).status_code == 200

    eventually(is_served, 60)


def test_changes_are_rejected_under_a_route_prefix(narrow):
    assert httpx.post(f"{narrow}{PREFIX}/models/words/reload", timeout=60).status_code == 403
