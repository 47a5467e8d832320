"""What the server refuses, and how it says so."""

import asyncio

import httpx
import pytest

from service.app import create_app
from service.config import Config
from service.observability import stats
from service.server import Server as ServiceParts
from tests.helpers.errors import refusal

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body", [b"", b"x", b'{"tokens": ["the"]', b'{"tokens": [NaN]}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_not_json(server, body):
    answer = server.client.post("/lookup", content=body, headers=JSON)
    assert "not JSON" in refusal(answer, 400)["message"]


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ([], None, "the body is a list"),
        ({}, "tokens", "neither tokens nor ids"),
        ({"tokens": ["a"], "ids": [1]}, "tokens", "both tokens and ids"),
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
def test_a_value_that_cannot_be_used(server, query, param, words):
    error = refusal(server.lookup(query), 422)
    assert error["param"] == param
    assert words in error["message"]


def test_raw_ids_of_a_broken_length(server):
    answer = server.client.post(
        "/lookup", content=b"12345", headers={"content-type": "application/octet-stream"}
    )
    assert "5 bytes" in refusal(answer, 422)["message"]


def test_an_unknown_model_is_answered_with_those_there_are(several):
    error = refusal(several.lookup({"tokens": ["the"], "model": "glove"}), 404)
    assert error["code"] == "model_not_found"
    assert all(name in error["message"] for name in ("'glove'", "'small'", "'large'", "'ids'"))


def test_no_model_where_several_are_loaded(several):
    assert "'small', 'large', 'ids'" in refusal(several.lookup({"tokens": ["the"]}), 422)["message"]


def test_a_body_of_another_type(server):
    answer = server.client.post("/lookup", content=b"a=1", headers={"content-type": "text/plain"})
    assert "'text/plain'" in refusal(answer, 415)["message"]


@pytest.mark.parametrize("path", ["/lookup", "/v1/embeddings", "/neighbors"])
def test_a_body_that_is_compressed(server, path):
    answer = server.client.post(path, content=b"\x1f\x8b", headers=JSON | {"content-encoding": "gzip"})
    assert "'gzip'" in refusal(answer, 415)["message"]
    answer = server.client.post("/lookup", json={"ids": [0]}, headers={"content-encoding": "identity"})
    assert answer.status_code == 200


def test_a_format_that_is_not_given(server):
    error = refusal(server.lookup({"tokens": ["the"]}, accept="text/html"), 406)
    assert "application/vnd.smallfry.packed" in error["message"]


def test_a_method_that_the_route_does_not_have(server):
    answer = server.client.get("/lookup")
    refusal(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/stats", "/metrics", "/models", "/models/small"])
def test_who_may_get_may_ask_for_the_head(server, path):
    answer = server.client.head(path)
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["content-type"] == server.client.get(path).headers["content-type"]


def test_a_route_that_does_not_exist(server):
    assert "/nowhere" in refusal(server.client.get("/nowhere"), 404)["message"]


def test_internal_error_has_the_same_form_and_is_logged(files, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("what nobody else may know")

    async def ask():
        app = create_app(ServiceParts.open(Config(embeddings=(str(files["small"]),))))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get("/stats", headers={"x-request-id": "mine"})

    monkeypatch.setattr(stats, "read", fail)
    answer = asyncio.run(ask())
    assert refusal(answer, 500)["code"] == "internal_error"
    assert "nobody" not in answer.text
    assert "request mine failed" in caplog.text and "nobody" in caplog.text


@pytest.mark.parametrize("path", ["/models/../../etc/passwd", "/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd"])
def test_no_path_leads_out_of_the_models(server, path):
    refusal(server.client.get(path), 404)


def test_a_batch_larger_than_allowed(start, files):
    limited = start(files["small"], "--max-batch-tokens", "3")
    assert limited.lookup({"tokens": ["the"] * 3}).status_code == 200
    assert "takes 3 at once" in refusal(limited.lookup({"tokens": ["the"] * 4}), 413)["message"]
    raw = limited.client.post(
        "/lookup", content=b"\0" * 16, headers={"content-type": "application/octet-stream"}
    )
    refusal(raw, 413)
    for options in ({}, {"pool": "mean"}):
        assert limited.lookup({"tokens": [[]] * 3} | options).status_code == 200
        for field in ("tokens", "ids"):
            message = refusal(limited.lookup({field: [[]] * 4} | options), 413)["message"]
            assert f"4 lists in {field}; this server takes 3 at once" in message
    for given in (["", "", "", ""], [[], [], [], []], "the the the the"):
        refusal(limited.client.post("/v1/embeddings", json={"input": given}), 413)


def test_a_body_larger_than_allowed(start, files):
    limited = start(files["small"], SMALLFRY_MAX_BODY="100")
    assert "100" in refusal(limited.lookup({"tokens": ["x" * 100]}), 413)["message"]
    stream = (b" " * 50 for _ in range(3))
    refusal(limited.client.post("/lookup", content=stream, headers=JSON), 413)
