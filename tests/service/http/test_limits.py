"""Concurrency limit, queue, timeouts and rejections."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import pytest

from service.errors import QueueTimeout
from service.http.limits import ConcurrencyLimiter
from service.observability.metrics import REASONS
from tests.helpers.errors import error_of, errors
from tests.helpers.metrics import difference, gauge
from tests.helpers.servers import LARGE_BODY, SlowRequest, eventually


@pytest.fixture(scope="module")
def narrow(files, start):
    """A server with one slot for small requests, room for one large body, and queues of one."""
    return start(
        files["small"],
        *("--max-concurrent-requests", "1", "--max-queue", "1", "--request-timeout", "2"),
        *("--max-batch-tokens", "8", "--max-body", "150000"),
    )


@pytest.fixture
def slow(narrow):
    """A request that holds the room for large ones."""
    eventually(lambda: gauge(narrow, "smallfry_in_flight_requests") == 1)
    request = SlowRequest(narrow)
    eventually(lambda: gauge(narrow, "smallfry_in_flight_requests") == 2)
    yield request
    request.close()


def test_slow_body_times_out(narrow, slow):
    response = slow.read()
    assert response.startswith(b"HTTP/1.1 408") and b"connection: close" in response
    assert b'"code": "request_timeout"' in response


def test_full_queue_rejects_immediately(narrow):
    eventually(lambda: gauge(narrow, "smallfry_in_flight_requests") == 1)
    requests = [SlowRequest(narrow) for _ in range(3)]
    responses = sorted(request.read() for request in requests)
    assert [response[9:12] for response in responses] == [b"408", b"408", b"429"]
    assert b"queue_full" in responses[2] and b"retry-after: 1\r\n" in responses[2]
    for request in requests:
        request.close()


def test_slow_small_body_takes_no_slot(narrow):
    eventually(lambda: gauge(narrow, "smallfry_in_flight_requests") == 1)
    late = [SlowRequest(narrow, b'{"tokens": ["the"]}') for _ in range(5)]
    eventually(lambda: gauge(narrow, "smallfry_in_flight_requests") == 6)
    assert narrow.lookup({"tokens": ["the"]}).status_code == 200
    for request in late:
        assert b" 200 OK" in request.finish()
        request.close()


def test_large_requests_keep_no_small_one_waiting(narrow, slow):
    waiting = SlowRequest(narrow)
    eventually(lambda: gauge(narrow, "smallfry_queued_requests") == 1)
    for _ in range(3):
        assert narrow.lookup({"tokens": ["the"]}).status_code == 200
    slow.close()
    assert b" 200 OK" in waiting.finish()
    waiting.close()


def test_a_slow_large_body_times_out_early_while_others_wait(files, start):
    server = start(files["small"], "--max-concurrent-requests", "1", "--max-body", "150000")
    begun, slow = monotonic(), SlowRequest(server)
    eventually(lambda: gauge(server, "smallfry_in_flight_requests") == 2)
    others = [SlowRequest(server) for _ in range(2)]
    response = server.client.post("/lookup", content=LARGE_BODY)
    assert response.status_code == 200
    assert b"HTTP/1.1 408" in slow.read()
    assert monotonic() - begun < 15
    for request in (slow, *others):
        request.close()


def test_slow_large_bodies_time_out_only_as_many_as_others_need(files, start):
    server = start(files["small"], "--max-concurrent-requests", "3", "--max-body", "140000")
    slow = []
    for count in range(1, 4):
        slow.append(SlowRequest(server))
        eventually(lambda expected=count + 1: gauge(server, "smallfry_in_flight_requests") == expected)
    assert server.client.post("/lookup", content=LARGE_BODY).status_code == 200
    assert b"HTTP/1.1 408" in slow[0].read()
    for request in slow[1:]:
        assert b" 200 OK" in request.finish()
        request.close()
    slow[0].close()


def test_a_body_larger_than_the_room_for_all_keeps_none_waiting(files, start):
    server = start(files["small"], "--max-concurrent-requests", "1", "--max-body", "20000")
    host, port = server.address.removeprefix("http://").split(":")
    head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head + b"5208\r\n" + b" " * 0x5208 + b"\r\n0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
    assert server.client.post("/lookup", content=LARGE_BODY[:20].ljust(20_000)).status_code == 200


def test_small_takers_are_granted_every_other_time():
    async def ask():
        limiter, order = ConcurrencyLimiter(10, 9, 5, ignore), []
        assert limiter.acquire(10)

        async def request(slots):
            await limiter.wait(slots)
            order.append(slots)

        waiting = [asyncio.ensure_future(request(slots)) for slots in (9, 8, 1, 2)]
        await asyncio.sleep(0)
        assert limiter.is_contended and not limiter.acquire(0)
        for slots in (10, 9, 1):
            limiter.release(slots)
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert limiter.acquire(0) and not limiter.acquire(1)
        return order

    assert asyncio.run(ask()) == [9, 1, 8, 2]


def test_health_checks_bypass_the_limit(narrow, slow):
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        assert narrow.client.get(path).status_code == 200


def test_responses_that_are_shared_take_no_slot(narrow):
    paths = ("/stats", "/metrics", "/models", "/v1/models", "/dashboard/models", "/openapi.json")

    def ask(path):
        return httpx.get(f"{narrow.address}{path}", timeout=30).status_code

    with ThreadPoolExecutor(24) as clients:
        statuses = clients.map(ask, paths * 8)
        assert narrow.lookup({"tokens": ["the"]}).status_code == 200
        assert set(statuses) == {200}


def ignore(queued):
    pass


def test_slots_are_granted_in_order():
    async def ask():
        limiter, order = ConcurrencyLimiter(1, 9, 5, ignore), []

        async def request(number):
            if not limiter.acquire():
                await limiter.wait()
            order.append(number)
            await asyncio.sleep(0)
            limiter.release()

        await asyncio.gather(*map(request, range(9)))
        assert limiter.acquire()
        assert not limiter.acquire()
        return order

    assert asyncio.run(ask()) == list(range(9))


def test_queue_timeout_rejects_and_leaves_the_queue():
    async def ask():
        limiter = ConcurrencyLimiter(1, 1, 0.01, ignore)
        assert limiter.acquire()
        for _ in range(2):
            with pytest.raises(QueueTimeout):
                await limiter.wait()
        limiter.release()
        assert limiter.acquire()

    asyncio.run(ask())


def test_cancelled_waiter_takes_no_slot():
    async def ask():
        limiter = ConcurrencyLimiter(1, 1, 5, ignore)
        assert limiter.acquire()
        waiting = asyncio.ensure_future(limiter.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        limiter.release()
        assert limiter.acquire()

    asyncio.run(ask())


def test_rejections_are_counted_by_reason(narrow):
    def act():
        error_of(narrow.client.put("/models/small", json={"path": "small.sfq"}), 403)
        error_of(narrow.lookup({"ids": [0] * 9}), 413)
        error_of(narrow.client.post("/lookup", content=bytes(1 << 19)), 413)
        test_full_queue_rejects_immediately(narrow)

    counted = difference(narrow, act)["smallfry_rejected_total"]
    assert counted["auth",] == counted["batch_size",] == counted["body_size",] == 1
    assert (counted["queue_full",], counted["slow_body",]) == (1, 2)


def test_each_rejection_reason_has_an_error():
    assert {error.reason for error in errors()} == {"", *REASONS}
