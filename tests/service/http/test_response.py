"""Large responses: generated in slices, between which the event loop serves small requests."""

import asyncio
import json

import pytest

from service.app import create_app
from service.config import Config
from service.models.model import Model
from service.server import Server
from smallfry.media_types import JSON, RAW, SAFETENSORS

LARGE = {"ids": list(range(5000)) * 3}


class Request:
    """A request to the application; its client has left once `left` is set, and reads while `reads` is."""

    def __init__(self, app, path, query=None, accept=JSON, log=None):
        self.status, self.sizes, self.left, self.reads = 0, [], asyncio.Event(), asyncio.Event()
        self.reads.set()
        self.ended, self.body = False, b""
        self._log = [] if log is None else log
        self._body = [b"" if query is None else json.dumps(query).encode()]
        scope = {
            "type": "http",
            "method": "GET" if query is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"accept", accept.encode())],
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self):
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        await self.reads.wait()
        self.status = message.get("status", self.status)
        self.ended = message["type"] == "http.response.body" and not message.get("more_body")
        self.body += message.get("body", b"")
        if message.get("body"):
            self.sizes.append(len(message["body"]))
            if len(message["body"]) > 1 << 16:
                self._log.append(self)


@pytest.fixture
def app(files):
    return create_app(Server.open(Config(embeddings=(str(files["large"]),))))


def test_small_requests_wait_for_a_few_slices_of_large_ones(app):
    async def run():
        log = []
        large = [Request(app, "/lookup", LARGE, log=log) for _ in range(32)]
        while len(log) < 64:
            await asyncio.sleep(0)
        for path, query in (("/livez", None), ("/readyz", None), ("/lookup", {"tokens": ["the"]})):
            before = len(log)
            small = Request(app, path, query)
            await small.task
            assert small.status == 200
            assert len(log) <= before + 8, path
        assert {request.status for request in large} == {200}
        for request in large:
            request.task.cancel()
        await asyncio.gather(*(request.task for request in large), return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("accept", [JSON, RAW, SAFETENSORS])
@pytest.mark.parametrize("options", [{}, {"dtype": "float16"}])
def test_nothing_is_generated_for_a_client_that_does_not_read(app, accept, options):
    async def run():
        request = Request(app, "/lookup", LARGE | options, accept)
        while len(request.sizes) < 3:
            await asyncio.sleep(0)
        request.reads.clear()
        received = len(request.sizes)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(request.sizes) == received
        request.reads.set()
        await request.task
        assert max(request.sizes) < 1 << 20

    asyncio.run(run())


def test_generation_stops_when_the_client_disconnects(app):
    async def run():
        request = Request(app, "/lookup", LARGE)
        while len(request.sizes) < 3:
            await asyncio.sleep(0)
        request.left.set()
        await request.task
        assert len(request.sizes) < 10

    asyncio.run(run())


@pytest.mark.parametrize("accept", [JSON, RAW])
@pytest.mark.parametrize("served", [0, 2])
def test_failure_before_the_first_slice_is_an_error_and_a_later_one_cuts_off(
    app, accept, served, monkeypatch, caplog
):
    decode, left = Model.decode, [None] * served

    def decode_few(*arguments):
        if not left:
            raise MemoryError("no more")
        left.pop()
        return decode(*arguments)

    monkeypatch.setattr(Model, "decode", decode_few)

    async def run():
        request = Request(app, "/lookup", LARGE, accept)
        if served:
            with pytest.raises(MemoryError):
                await request.task
            assert request.status == 200
            assert not request.ended
        else:
            await request.task
            assert request.status == 503
            assert request.ended
        assert "not enough memory: no more" in caplog.text
        metrics = Request(app, "/metrics")
        await metrics.task
        assert 'smallfry_requests_total{route="/lookup",code="503"} 1\n' in metrics.body.decode()

    asyncio.run(run())


def test_a_response_that_shutdown_cuts_off_counts_as_503(files):
    server = Server.open(Config(embeddings=(str(files["large"]),)))
    app = create_app(server)

    async def run():
        request = Request(app, "/lookup", LARGE)
        while len(request.sizes) < 3:
            await asyncio.sleep(0)
        server.lifecycle.drain(1)
        request.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request.task
        assert request.status == 200
        assert not request.ended
        metrics = Request(app, "/metrics")
        await metrics.task
        text = metrics.body.decode()
        assert 'smallfry_requests_total{route="/lookup",code="503"} 1\n' in text
        assert 'smallfry_requests_total{route="/lookup",code="200"} 0\n' in text
        assert 'smallfry_rejected_total{reason="draining"} 1\n' in text

    asyncio.run(run())
