"""The middleware of Ray Serve's proxies; these tests do not need Ray."""

import asyncio

import orjson
import pytest

from service.ray.proxy import MULTIPLEXED, ProxyMiddleware

RAW = b"application/octet-stream"


class Proxy:
    """Responds in place of Serve's proxy, and records the request."""

    def __init__(self, *messages):
        self.messages = messages
        self.scope = {}
        self.body = b""

    async def __call__(self, scope, receive, send):
        self.scope = scope
        while True:
            message = await receive()
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        for message in self.messages:
            await send(message)

    @property
    def model(self):
        found = [
            value.decode() for name, value in self.scope["headers"] if name == b"serve_multiplexed_model_id"
        ]
        return found[-1] if found else None


def response(status, kind, *headers):
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *headers]}
    return start, {"type": "http.response.body", "body": b"body"}


def post(app, body=(b"{}",), path="/lookup", method="POST", kind=b"application/json", query=b""):
    chunks = list(body)
    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    scope["headers"] = [(b"content-type", kind)]
    sent = []

    async def receive():
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def error(sent):
    return sent[0]["status"], orjson.loads(sent[1]["body"])["error"]


MULTIPLEXED_RESPONSE = response(200, b"application/json", MULTIPLEXED)


def multiplexed():
    """Return middleware that has seen a response of a replica with multiplexing."""
    proxy = Proxy(*MULTIPLEXED_RESPONSE)
    app = ProxyMiddleware(proxy)
    post(app)
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
def test_errors_of_the_proxy_get_the_form_of_the_server(status, expected, code):
    sent = post(ProxyMiddleware(Proxy(*response(status, b"text/plain; charset=utf-8"))))
    got, described = error(sent)
    assert (got, described["code"]) == (expected, code)
    assert (b"retry-after", b"1") in sent[0]["headers"]


def test_a_missing_response_is_unavailable():
    status, described = error(post(ProxyMiddleware(Proxy())))
    assert (status, described["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, b"text/plain"), (404, b"text/plain"), (429, b"application/json"), (503, b"application/json")],
)
def test_other_responses_pass_unchanged(status, kind):
    expected = response(status, kind, (b"x", b"y"))
    assert post(ProxyMiddleware(Proxy(*expected))) == list(expected)


def test_the_multiplexing_header_is_removed():
    sent = post(ProxyMiddleware(Proxy(*MULTIPLEXED_RESPONSE)))
    assert sent == list(response(200, b"application/json"))


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
def test_a_request_is_routed_by_model_and_keeps_its_body(body, name):
    app, proxy = multiplexed()
    post(app, body)
    assert proxy.model == name
    assert proxy.body == b"".join(body)


def test_raw_ids_take_the_model_from_the_query():
    app, proxy = multiplexed()
    post(app, [b'\0\0"model":"no"'], kind=RAW, query=b"model=a+b%2Fc&x=1")
    assert proxy.model == "a b/c"
    post(app, [b""], path="/models/words/file", method="GET")
    assert proxy.model == "words"
    post(app, [b""], path="/stats", method="GET")
    assert proxy.model is None


def test_a_long_body_is_passed_on():
    app, proxy = multiplexed()
    chunks = [b"x" * (1 << 20)] * 12
    post(app, chunks)
    assert len(proxy.body) == 12 << 20


def test_requests_are_not_read_without_multiplexing():
    proxy = Proxy(*response(200, b"application/json"))
    app = ProxyMiddleware(proxy)
    post(app)
    post(app, [b'{"model": "words"}'])
    assert proxy.model is None
