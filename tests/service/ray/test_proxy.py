"""What is put before Ray Serve's proxies; Ray itself is not needed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.ray.proxy import MULTIPLEXED, ProxyMiddleware

RAW = b"application/octet-stream"


class Proxy:
    """Answers in place of Serve's proxy, and keeps what it was asked."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.scope: Scope = {}
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        while True:
            message = await receive()
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        for message in self.messages:
            await send(message)

    @property
    def model(self) -> str | None:
        found = [
            value.decode() for name, value in self.scope["headers"] if name == b"serve_multiplexed_model_id"
        ]
        return found[-1] if found else None


def answer(status: int, kind: bytes, *headers: tuple[bytes, bytes]) -> tuple[Message, Message]:
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *headers]}
    return start, {"type": "http.response.body", "body": b"body"}


def ask(
    app: ProxyMiddleware,
    body: Iterable[bytes] = (b"{}",),
    path: str = "/lookup",
    method: str = "POST",
    kind: bytes = b"application/json",
    query: bytes = b"",
) -> list[Message]:
    pieces = list(body)
    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    scope["headers"] = [(b"content-type", kind)]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def error(sent: list[Message]) -> tuple[int, Any]:
    return sent[0]["status"], orjson.loads(sent[1]["body"])["error"]


SPREADING = answer(200, b"application/json", MULTIPLEXED)


def spreading() -> tuple[ProxyMiddleware, Proxy]:
    """Return what has seen that vocabularies are spread."""
    proxy = Proxy(*SPREADING)
    app = ProxyMiddleware(proxy)
    ask(app)
    proxy.body = b""
    return app, proxy


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (429, 429, "queue_full"),
        (408, 504, "queue_timeout"),
        (503, 503, "unavailable"),
        (500, 503, "unavailable"),
    ],
)
def test_a_refusal_of_the_proxy_gets_the_form_of_the_server(status: int, expected: int, code: str) -> None:
    sent = ask(ProxyMiddleware(Proxy(*answer(status, b"text/plain; charset=utf-8"))))
    got, described = error(sent)
    assert (got, described["code"]) == (expected, code)
    assert (b"retry-after", b"1") in sent[0]["headers"]


def test_a_replica_that_is_gone_is_an_error_of_its_own() -> None:
    status, described = error(ask(ProxyMiddleware(Proxy())))
    assert (status, described["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, b"text/plain"), (404, b"text/plain"), (429, b"application/json"), (503, b"application/json")],
)
def test_other_answers_pass_as_they_are(status: int, kind: bytes) -> None:
    expected = answer(status, kind, (b"x", b"y"))
    assert ask(ProxyMiddleware(Proxy(*expected))) == list(expected)


def test_the_mark_of_replicas_that_spread_is_taken_off() -> None:
    sent = ask(ProxyMiddleware(Proxy(*SPREADING)))
    assert sent == list(answer(200, b"application/json"))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ([b'{"tokens": ["a"], "model": "words"}'], "words"),
        ([b'{"model"', b' : "w\\u00f6rter", "tok', b'ens": []}'], "w\u00f6rter"),
        ([b'{"tokens": ["\\"model\\": \\"no\\""], "model":"yes"}'], "yes"),
        ([b'{"tokens": ["a"]}'], None),
        ([b'{"model": 5}'], None),
        ([b'{"model": "\\ud800"}'], None),
        ([b"\xff\xfe"], None),
        ([b""], None),
    ],
)
def test_a_request_goes_where_its_vocabulary_is_and_arrives_whole(
    body: list[bytes], name: str | None
) -> None:
    app, proxy = spreading()
    ask(app, body)
    assert proxy.model == name
    assert proxy.body == b"".join(body)


def test_raw_ids_take_the_model_from_the_query() -> None:
    app, proxy = spreading()
    ask(app, [b'\0\0"model":"no"'], kind=RAW, query=b"model=a+b%2Fc&x=1")
    assert proxy.model == "a b/c"
    ask(app, [b""], path="/models/words/file", method="GET")
    assert proxy.model == "words"
    ask(app, [b""], path="/stats", method="GET")
    assert proxy.model is None


def test_an_endless_body_is_passed_on() -> None:
    app, proxy = spreading()
    pieces = [b"x" * (1 << 20)] * 12
    ask(app, pieces)
    assert len(proxy.body) == 12 << 20


def test_nothing_is_read_where_every_replica_has_all() -> None:
    proxy = Proxy(*answer(200, b"application/json"))
    app = ProxyMiddleware(proxy)
    ask(app)
    ask(app, [b'{"model": "words"}'])
    assert proxy.model is None
