"""Clients that request large responses and read nothing: memory, and the small lookups of others."""

import json
import socket
from contextlib import ExitStack

import pytest

from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from tests.attacks.sockets import write_models
from tests.attacks.test_sockets import honest, private
from tests.helpers.metrics import gauge
from tests.helpers.servers import eventually

READERS = 300
#: Bytes by which the server may grow, for any number of readers; one whole JSON response is larger.
GROWTH = 150 << 20

IDS = json.dumps({"model": "large", "ids": list(range(5000)) * 3 + [0] * 1384})
TEXTS = json.dumps({"model": "large", "input": ["the cat"] * 2048})


def post(path, body, accept=JSON):
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\naccept: {accept}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


REQUESTS = {
    "json": post("/lookup", IDS),
    "raw": post("/lookup", IDS, RAW),
    "safetensors": post("/lookup", IDS, SAFETENSORS),
    "packed": post("/lookup", IDS, PACKED),
    "embeddings": post("/v1/embeddings", TEXTS),
    "base64": post("/v1/embeddings", TEXTS[:-1] + ', "encoding_format": "base64"}'),
    "file": b"GET /models/large/file HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
def unread(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("unread")
    write_models(folder)
    server = start(folder, "--max-concurrent-requests", "140", "--max-queue", "300")
    honest(server)
    return server


@pytest.mark.parametrize("name", REQUESTS)
def test_slow_readers_take_little_memory_and_no_slot_of_small_lookups(unread, name):
    before = private(unread)
    host, port = unread.address.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(READERS):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(REQUESTS[name])
            assert private(unread) < before + GROWTH
        for _ in range(20):
            honest(unread)
            assert unread.client.get("/readyz").status_code == 200
            assert private(unread) < before + GROWTH
    eventually(lambda: gauge(unread, "smallfry_in_flight_requests") == 1)
