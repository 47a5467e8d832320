"""What is more than replicas and their queue take is refused, in the form of the server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from ray import serve

from tests.helpers.ray_cluster import deploy
from tests.helpers.servers import eventually

PREFIX = "/narrow"


@pytest.fixture(scope="module")
def narrow(proxy: str, vocabulary: Path) -> Iterator[str]:
    """One replica that takes one request, and one that may wait."""
    limits = {"num_replicas": 1, "max_ongoing_requests": 1, "max_queued_requests": 1}
    deploy([str(vocabulary)], name="narrow", prefix=PREFIX, ray_actor_options={"num_cpus": 0}, **limits)
    yield proxy
    serve.delete("narrow")


def test_what_is_too_much_is_told_to_try_again(narrow: str) -> None:
    host, port = narrow.removeprefix("http://").split(":")
    head = f"POST {PREFIX}/lookup HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    refused: list[httpx.Response] = []

    def is_refused() -> bool:
        with ExitStack() as stack:
            # Their bodies do not arrive: the first holds the replica, the second the queue.
            for _ in range(3):
                slow = stack.enter_context(socket.create_connection((host, int(port))))
                slow.sendall(f"{head}content-length: 99\r\n\r\n".encode())
            try:
                answer = httpx.post(f"{narrow}{PREFIX}/lookup", json={"tokens": ["the"]}, timeout=2)
            except httpx.TimeoutException:
                return False
        refused.append(answer)
        return answer.status_code == 429

    eventually(is_refused, 60)
    assert refused[-1].headers["retry-after"] == "1"
    assert refused[-1].json()["error"]["code"] == "queue_full"
    assert refused[-1].json()["error"]["type"] == "rate_limit_error"

    def is_answered() -> bool:
        return httpx.post(f"{narrow}{PREFIX}/lookup", json={"tokens": ["the"]}, timeout=60).status_code == 200

    eventually(is_answered, 60)
