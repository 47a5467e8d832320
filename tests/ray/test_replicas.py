"""Replicas on a cluster respond like a single server."""

import httpx
import pytest

from tests.helpers.servers import TOKENS

FORMATS = (
    "application/json",
    "application/octet-stream",
    "application/vnd.safetensors",
    "application/vnd.smallfry.packed",
)
QUERIES = (
    {"tokens": TOKENS},
    {"tokens": []},
    {"tokens": ["the", "no-such-word"], "oov": "mean"},
    {"tokens": [["the", "cat"], [], ["mat"]]},
    {"ids": [0, 1999, 5, 5], "dtype": "float16"},
    {"ids": [*range(2000)]},
)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{min(query)}-{len(str(query))}")
def test_responses_equal_those_of_a_single_server(address, single, query, accept):
    expected = single.lookup(query, accept=accept)
    for _ in range(4):
        response = httpx.post(f"{address}/lookup", json=query, headers={"accept": accept}, timeout=30)
        assert (response.status_code, response.content) == (200, expected.content)
        assert response.headers["x-smallfry-digest"] == expected.headers["x-smallfry-digest"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/lookup", {"tokens": "the"}), ("/lookup", {"tokens": ["the"], "model": "x"}), ("/nowhere", {})],
)
def test_errors_equal_those_of_a_single_server(address, single, path, body):
    expected = single.client.post(path, json=body)
    response = httpx.post(f"{address}{path}", json=body, timeout=30)
    assert (response.status_code, response.json()) == (expected.status_code, expected.json())


def test_the_file_is_downloaded_unchanged(address, single):
    assert (
        httpx.get(f"{address}/models/words/file", timeout=30).content
        == single.client.get("/models/words/file").content
    )


def test_stats_cover_all_replicas(address):
    before = httpx.get(f"{address}/stats", timeout=30).json()
    for _ in range(20):
        httpx.post(f"{address}/lookup", json={"tokens": ["the", "no-such-word"]}, timeout=30)
    after = httpx.get(f"{address}/stats", timeout=30).json()
    assert after["workers"] == len(after["memory"]["processes"]) == 2
    for kind in ("found", "unknown"):
        assert after["tokens"][kind] - before["tokens"].get(kind, 0) == 20
    metrics = httpx.get(f"{address}/metrics", timeout=30).text
    assert f'smallfry_tokens_total{{result="found"}} {after["tokens"]["found"]}' in metrics


def test_changes_of_one_replica_are_rejected(address):
    response = httpx.post(f"{address}/models/words/reload", timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "not_allowed")
    assert "user_config" in response.json()["error"]["message"]
