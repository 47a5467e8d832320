"""Error responses."""

import asyncio

import httpx
import pytest

from service.app import create_app
from service.config import Config
from service.observability import stats
from service.server import Server as ServiceParts
from tests.helpers.errors import error_of

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body", [b"", b"x", b'{"tokens": ["the"]', b'{"tokens": [NaN]}', b"\xff", b"[" * 40_000]
)
def test_invalid_json_is_rejected(server, body):
    response = server.client.post("/lookup", content=body, headers=JSON)
    assert "not JSON" in error_of(response, 400)["message"]


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ([], None, "the body is a list"),
        ({}, "tokens", "none of tokens, ids, texts"),
        ({"tokens": ["a"], "ids": [1]}, "tokens", "tokens and ids; give one of them"),
        ({"tokens": "the"}, "tokens", "tokens is a string"),
        ({"tokens": [1]}, "tokens", "tokens[0] is a number"),
        ({"tokens": ["a", None]}, "tokens", "tokens[1] is null"),
        ({"tokens": ["a", ["b"]]}, "tokens", "tokens[1] is a list"),
        ({"tokens": [["a"], "b"]}, "tokens", "tokens[1] is a string"),
        ({"tokens": [["a"], [], ["b", 2]]}, "tokens", "tokens[2][1] is a number"),
        ({"ids": 3}, "ids", "ids is a number"),
        ({"ids": ["a"]}, "ids", "ids[0] is a string"),
        ({"ids": [0, True]}, "ids", "ids[1] is a boolean"),
        ({"ids": [0, 1.0]}, "ids", "ids[1] is a number"),
        ({"ids": [0, -1]}, "ids", "ids[1] is -1"),
        ({"ids": [0, 12]}, "ids", "the rows of 'small' are 0 to 11"),
        ({"ids": [2**32]}, "ids", "ids[0] is 4294967296"),
        ({"ids": [1, 2**63]}, "ids", "ids[1] is 9223372036854775808"),
        ({"ids": [2**64]}, "ids", "ids[0] is"),
        ({"ids": [[0], [1, 99]]}, "ids", "ids[1][1] is 99"),
        ({"tokens": ["a"], "model": 3}, "model", "model is a number"),
        ({"tokens": ["a"], "pool": "max"}, "pool", "pool is 'max'"),
        ({"tokens": ["a"], "pool": "mean"}, "pool", "lists of lists"),
        ({"tokens": ["a"], "oov": "ignore"}, "oov", "oov is 'ignore'"),
        ({"tokens": ["a"], "oov": "skip"}, "oov", "pool"),
        ({"tokens": ["a"], "dtype": "int8"}, "dtype", "dtype is 'int8'"),
        ({"token": ["a"]}, "token", "no field 'token'"),
    ],
)
def test_invalid_value_is_rejected(server, query, param, words):
    error = error_of(server.lookup(query), 422)
    assert error["param"] == param
    assert words in error["message"]


def test_raw_ids_of_invalid_length_are_rejected(server):
    response = server.client.post(
        "/lookup", content=b"12345", headers={"content-type": "application/octet-stream"}
    )
    assert "5 bytes" in error_of(response, 422)["message"]


def test_unknown_model_error_lists_the_models(several):
    error = error_of(several.lookup({"tokens": ["the"], "model": "glove"}), 404)
    assert error["code"] == "model_not_found"
    assert all(name in error["message"] for name in ("'glove'", "'small'", "'large'", "'ids'"))


def test_missing_model_is_an_error_if_several_are_loaded(several):
    assert "'small', 'large', 'ids'" in error_of(several.lookup({"tokens": ["the"]}), 422)["message"]


def test_unsupported_content_type_is_rejected(server):
    response = server.client.post("/lookup", content=b"a=1", headers={"content-type": "text/plain"})
    assert "'text/plain'" in error_of(response, 415)["message"]


@pytest.mark.parametrize("path", ["/lookup", "/v1/embeddings", "/neighbors"])
def test_compressed_body_is_rejected(server, path):
    response = server.client.post(path, content=b"\x1f\x8b", headers=JSON | {"content-encoding": "gzip"})
    assert "'gzip'" in error_of(response, 415)["message"]
    response = server.client.post("/lookup", json={"ids": [0]}, headers={"content-encoding": "identity"})
    assert response.status_code == 200


def test_unsupported_accept_is_rejected(server):
    error = error_of(server.lookup({"tokens": ["the"]}, accept="text/html"), 406)
    assert "application/vnd.smallfry.packed" in error["message"]


def test_unsupported_method_is_rejected(server):
    response = server.client.get("/lookup")
    error_of(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/stats", "/metrics", "/models", "/models/small"])
def test_head_is_allowed_wherever_get_is(server, path):
    response = server.client.head(path)
    assert response.status_code == 200 and response.content == b""
    assert response.headers["content-type"] == server.client.get(path).headers["content-type"]


def test_unknown_route_is_404(server):
    assert "/nowhere" in error_of(server.client.get("/nowhere"), 404)["message"]


def test_internal_error_has_the_same_form_and_is_logged(files, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("what nobody else may know")

    async def ask():
        app = create_app(ServiceParts.open(Config(embeddings=(str(files["small"]),))))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get("/stats", headers={"x-request-id": "mine"})

    monkeypatch.setattr(stats, "read", fail)
    response = asyncio.run(ask())
    assert error_of(response, 500)["code"] == "internal_error"
    assert "nobody" not in response.text
    assert "request mine failed" in caplog.text and "nobody" in caplog.text


@pytest.mark.parametrize("path", ["/models/../../etc/passwd", "/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd"])
def test_paths_cannot_escape_the_models(server, path):
    error_of(server.client.get(path), 404)


def test_batch_over_the_limit_is_rejected(start, files):
    limited = start(files["small"], "--max-batch-tokens", "3")
    assert limited.lookup({"tokens": ["the"] * 3}).status_code == 200
    assert "takes 3 at once" in error_of(limited.lookup({"tokens": ["the"] * 4}), 413)["message"]
    raw = limited.client.post(
        "/lookup", content=b"\0" * 16, headers={"content-type": "application/octet-stream"}
    )
    error_of(raw, 413)
    for options in ({}, {"pool": "mean"}):
        assert limited.lookup({"tokens": [[]] * 3} | options).status_code == 200
        for field in ("tokens", "ids"):
            message = error_of(limited.lookup({field: [[]] * 4} | options), 413)["message"]
            assert f"4 lists in {field}; this server takes 3 at once" in message
    words = limited.client.post("/v1/embeddings", json={"input": ["the the", "the the"]})
    assert "more than 3 words" in error_of(words, 413)["message"]


def test_body_over_the_limit_is_rejected(start, files):
    limited = start(files["small"], SMALLFRY_MAX_BODY="100")
    assert "100" in error_of(limited.lookup({"tokens": ["x" * 100]}), 413)["message"]
    stream = (b" " * 50 for _ in range(3))
    error_of(limited.client.post("/lookup", content=stream, headers=JSON), 413)
