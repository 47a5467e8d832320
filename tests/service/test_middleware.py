"""The outermost layer: rejected requests; CORS, over HTTP and in a real browser."""

import asyncio
import gc
import json
import weakref

import pytest

import service.middleware
from service.app import create_app
from service.config import Config
from service.http.request import RequestBody
from service.server import Server
from tests.helpers.errors import error_of
from tests.helpers.metrics import difference
from tests.helpers.servers import LARGE_BODY, SlowRequest, eventually

ORIGIN = {"origin": "https://app.example"}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tokens": 1}, 422),
        ({"tokens": ["no-such-word"], "oov": "error"}, 422),
        ({"tokens": ["the"], "model": "no-such-model"}, 404),
        ({"tokens": ["the"] * 4}, 413),
        ({"tokens": ["the"] * 1000}, 413),
    ],
)
def test_a_rejected_request_is_freed_at_once(files, monkeypatch, query, status):
    bodies, statuses = [], []

    class Body(RequestBody):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            bodies.append(weakref.ref(self))

    monkeypatch.setattr(service.middleware, "RequestBody", Body)
    app = create_app(
        Server.open(Config(embeddings=(str(files["small"]),), max_batch_tokens=3, max_body=1000))
    )
    chunks = [json.dumps(query).encode()]

    async def receive():
        return {"type": "http.request", "body": chunks.pop()}

    async def send(message):
        statuses.append(message.get("status"))

    scope = {"type": "http", "method": "POST", "path": "/lookup", "query_string": b"", "headers": []}
    gc.disable()
    try:
        asyncio.run(app(scope, receive, send))
        assert statuses[0] == status
        assert [body() for body in bodies] == [None]
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def cors(files, start):
    return start(
        files["small"],
        *("--cors-origin", ORIGIN["origin"], "--max-batch-tokens", "3"),
        SMALLFRY_API_KEYS="key",
        SMALLFRY_ADMIN_KEY="admin",
    )


def preflight(server, path, method="POST", headers="x-api-key", **origin):
    asked = {"access-control-request-method": method, "access-control-request-headers": headers}
    return server.client.options(path, headers=(origin or ORIGIN) | asked)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/lookup", "POST"), ("/v1/models", "GET"), ("/models/small", "PUT"), ("/models/small", "DELETE")],
)
def test_preflight_allows_every_method_and_the_requested_headers(cors, path, method):
    headers = "authorization,content-type,if-none-match,traceparent,x-stainless-os"
    response = preflight(cors, path, method, headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert response.headers["access-control-allow-headers"] == headers
    assert method in response.headers["access-control-allow-methods"].split(", ")


def test_preflight_of_another_origin_is_rejected(cors):
    response = preflight(cors, "/lookup", origin="https://evil.example")
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


def test_preflights_have_request_ids_and_are_counted_and_logged(files, start):
    server = start(files["small"], "--cors-origin", "*", "--access-log", "--log-format", "json")
    responses = []
    counted = difference(server, lambda: responses.append(preflight(server, "/lookup")))
    requests = counted["smallfry_requests_total"]
    assert (requests["other", "200"], requests.get(("/lookup", "200"), 0)) == (1, 0)
    (response,) = responses
    assert response.headers["access-control-allow-origin"] == "*"
    _, log = server.stop()
    records = [json.loads(line) for line in log.splitlines()]
    (logged,) = [record for record in records if record.get("http.request.method") == "OPTIONS"]
    assert (logged["url.path"], logged["http.response.status_code"]) == ("/lookup", 200)
    assert logged["http.request.id"] == response.headers["x-request-id"]


def assert_readable(response):
    assert response.headers["access-control-allow-origin"] == ORIGIN["origin"]
    exposed = set(response.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {"x-request-id", "x-smallfry-digest", "retry-after", "etag", "content-range"}
    assert "Origin" in response.headers["vary"]


def test_responses_are_readable_by_the_origin(cors):
    key = {"x-api-key": "key"}
    assert_readable(cors.lookup({"tokens": ["the"]}, **key, **ORIGIN))
    assert_readable(cors.client.get("/models/small/file", headers=key | ORIGIN))
    other = cors.lookup({"tokens": ["the"]}, origin="https://evil.example", **key)
    assert "access-control-allow-origin" not in other.headers


def test_errors_are_readable_by_the_origin(cors):
    key = {"x-api-key": "key"}
    for response, status in (
        (cors.lookup({"tokens": ["the"]}, **ORIGIN), 401),
        (cors.client.put("/models/small", json={}, headers=key | ORIGIN), 403),
        (cors.client.get("/nowhere", headers=key | ORIGIN), 404),
        (cors.lookup({"tokens": ["the"] * 4}, **key, **ORIGIN), 413),
        (cors.lookup({"tokens": 3}, **key, **ORIGIN), 422),
    ):
        error_of(response, status)
        assert_readable(response)


def test_rejection_at_the_limit_is_readable_by_the_origin(files, start):
    limits = ("--max-concurrent-requests", "1", "--max-queue", "0", "--max-body", "150000")
    server = start(files["small"], "--cors-origin", ORIGIN["origin"], *limits)
    slow = SlowRequest(server)
    eventually(lambda: server.client.post("/lookup", content=LARGE_BODY).status_code == 429)
    response = server.client.post("/lookup", content=LARGE_BODY, headers=ORIGIN)
    assert response.headers["retry-after"] == "1"
    error_of(response, 429)
    assert_readable(response)
    assert preflight(server, "/lookup").status_code == 200
    slow.close()


def test_cors_is_off_by_default(server):
    assert "access-control-allow-origin" not in server.lookup({"tokens": ["the"]}, **ORIGIN).headers
    error_of(preflight(server, "/lookup"), 403)


FETCH = """
async ([address, path, options]) => {
  const response = await fetch(address + path, options);
  return [response.status, Object.fromEntries(response.headers), await response.text()];
}
"""


def test_scripts_of_another_origin_call_the_server(browser, server, files, start):
    host = server.address.replace("127.0.0.1", "localhost")
    api = start(files["small"], "--cors-origin", host, SMALLFRY_API_KEYS="key", SMALLFRY_ADMIN_KEY="admin")
    page = browser.new_page()
    page.goto(f"{host}/livez")

    def fetch(path, method="GET", body=None, key="key", **headers):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        options = {"method": method, "headers": fields | {"authorization": f"Bearer {key}"}, "body": body}
        return page.evaluate(FETCH, [api.address, path, options])

    query = json.dumps({"input": "the"})
    json_type = {"content_type": "application/json", "x_stainless_os": "Linux", "traceparent": "00-1-2-3"}
    status, headers, body = fetch("/v1/embeddings", "POST", query, **json_type)
    assert (status, len(json.loads(body)["data"])) == (200, 1)
    assert headers["x-request-id"] and headers["x-smallfry-digest"]
    status, headers, body = fetch("/v1/embeddings", "POST", query, "wrong", **json_type)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
    status, headers, body = fetch("/models/small/file", range="bytes=0-7")
    assert (status, len(body)) == (206, 8)
    assert headers["content-range"].startswith("bytes 0-7/") and headers["accept-ranges"] == "bytes"
    assert fetch("/models/small", if_none_match=headers["etag"])[0] == 304
    assert fetch("/models/small", "DELETE", key="admin")[0] == 204
    page.close()


def test_scripts_of_a_third_origin_do_not(browser, server, files, start):
    playwright = pytest.importorskip("playwright.sync_api")
    api = start(files["small"], "--cors-origin", "https://app.example")
    page = browser.new_page()
    page.goto(f"{server.address}/livez")
    with pytest.raises(playwright.Error, match="Failed to fetch"):
        page.evaluate(FETCH, [api.address, "/models", {}])
    page.close()
