"""Replicas on a cluster answer as one server does."""

from __future__ import annotations

import httpx
import pytest
from serving import TOKENS, Server

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
def test_an_answer_is_that_of_the_single_server(
    address: str, single: Server, query: object, accept: str
) -> None:
    expected = single.lookup(query, accept=accept)
    for _ in range(4):
        answer = httpx.post(f"{address}/lookup", json=query, headers={"accept": accept}, timeout=30)
        assert (answer.status_code, answer.content) == (200, expected.content)
        assert answer.headers["x-smallfry-digest"] == expected.headers["x-smallfry-digest"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/lookup", {"tokens": "the"}), ("/lookup", {"tokens": ["the"], "model": "x"}), ("/nowhere", {})],
)
def test_an_error_has_the_form_of_the_single_server(
    address: str, single: Server, path: str, body: object
) -> None:
    expected = single.client.post(path, json=body)
    answer = httpx.post(f"{address}{path}", json=body, timeout=30)
    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())


def test_the_file_is_sent_whole(address: str, single: Server) -> None:
    assert (
        httpx.get(f"{address}/models/words/file", timeout=30).content
        == single.client.get("/models/words/file").content
    )
