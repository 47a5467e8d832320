"""``POST /v1/embeddings``."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smallfry
from service.routes.embeddings import MAX_TEXTS, split
from service.routes.formats import JSON_CHUNK
from tests.helpers.errors import error_of

TEXTS = ["The cat sat.", "a mat", "wug", ""]


def mean(files, words):
    vectors, _ = smallfry.open(files["small"]).lookup(words)
    return vectors.mean(axis=0)


def embed(server, **fields):
    response = server.client.post("/v1/embeddings", json=fields)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_each_text_is_the_mean_of_its_known_words(server, files):
    response = embed(server, model="small", input=TEXTS)
    assert response["object"] == "list" and response["model"] == "small"
    assert [entry["index"] for entry in response["data"]] == [0, 1, 2, 3]
    expected = [mean(files, ["the", "cat", "sat"]), mean(files, ["a", "mat"]), np.zeros(7), np.zeros(7)]
    np.testing.assert_allclose([entry["embedding"] for entry in response["data"]], expected, rtol=1e-6)
    assert response["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_base64_holds_the_same_bits(server):
    plain = embed(server, input=TEXTS)
    packed = embed(server, input=TEXTS, encoding_format="base64")
    for one, other in zip(plain["data"], packed["data"], strict=True):
        values = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert values.tobytes() == np.array(one["embedding"], np.float32).tobytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("the cat", [["the", "cat"]]),
        (["the cat"], [["the", "cat"]]),
        (["the cat", "", "a"], [["the", "cat"], ["wug"], ["a"]]),
    ],
)
def test_takes_a_text_or_texts(server, files, given, words):
    data = embed(server, input=given)["data"]
    expected = [mean(files, bag) for bag in words]
    np.testing.assert_allclose([entry["embedding"] for entry in data], expected, rtol=1e-6)


@pytest.mark.parametrize("given", [[0, 1], [[0, 1], [4]], ["the", 0], ["the", [0]], [15339]])
def test_integers_are_rejected_with_the_remedy(server, given):
    error = error_of(server.client.post("/v1/embeddings", json={"input": given}), 422)
    assert error["param"] == "input"
    assert "check_embedding_ctx_length=False" in error["message"] and "/lookup" in error["message"]


def test_table_without_a_vocabulary_is_rejected_with_the_remedy(several):
    response = several.client.post("/v1/embeddings", json={"model": "ids", "input": "the"})
    error = error_of(response, 422)
    assert error["param"] == "model" and "/lookup" in error["message"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 422, "input"),
        ({"input": None}, 422, "input"),
        ({"input": []}, 400, "input"),
        ({"input": 3}, 422, "input"),
        ({"input": {}}, 422, "input"),
        ({"input": ["a", None]}, 422, "input"),
        ({"input": ["a", True]}, 422, "input"),
        ({"input": "a", "dimensions": 3}, 422, "dimensions"),
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model"),
    ],
)
def test_invalid_requests_are_rejected(server, fields, status, param):
    assert error_of(server.client.post("/v1/embeddings", json=fields), status)["param"] == param


def test_unknown_fields_are_ignored(server):
    fields = {"user": "me", "truncate": "END", "input_type": "query", "encoding": {}, "inptu": 3}
    assert embed(server, input="the", **fields) == embed(server, input="the")


def test_dimensions_must_match_the_model(server):
    assert len(embed(server, input="the", dimensions=7)["data"][0]["embedding"]) == 7


def test_takes_a_limited_number_of_texts(server):
    assert len(embed(server, input=["the"] * MAX_TEXTS)["data"]) == MAX_TEXTS
    response = server.client.post("/v1/embeddings", json={"input": ["the"] * (MAX_TEXTS + 1)})
    error = error_of(response, 413)
    assert error["param"] == "input" and f"{MAX_TEXTS + 1} texts" in error["message"]


@pytest.mark.parametrize("texts", [["the " * 17], ["the " * 8, "a b c d e f g h i"], ["." * 10000]])
def test_takes_a_limited_number_of_words(start, files, texts):
    server = start(files["small"], "--max-batch-tokens", "16")
    embed(server, input=["the " * 8, "", "a b c d e f g h"])
    error = error_of(server.client.post("/v1/embeddings", json={"input": texts}), 413)
    assert error["param"] == "input" and "--max-batch-tokens" in error["message"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_large_response_is_streamed_with_the_same_values(several, files, encoding):
    count = 2 * JSON_CHUNK // 300 + 5
    texts = [f"token-{12 + row} The {'wug ' * (row % 3)}" for row in range(count)] + [""]
    body = {"model": "large", "input": texts, "encoding_format": encoding}
    with several.client.stream("POST", "/v1/embeddings", json=body) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-type"] == "application/json"
        content = json.loads(response.read())
    assert content["object"] == "list" and content["model"] == "large"
    assert [entry["index"] for entry in content["data"]] == list(range(count + 1))
    words = 2 * count + sum(row % 3 for row in range(count))
    assert content["usage"] == {"prompt_tokens": words, "total_tokens": words}
    vectors = [entry["embedding"] for entry in content["data"]]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
    rows, _ = smallfry.open(files["large"]).lookup([f"token-{12 + row}" for row in range(count)])
    common, _ = smallfry.open(files["large"]).lookup(["the"])
    np.testing.assert_allclose(vectors[:-1], (rows + common) / 2, rtol=1e-5, atol=1e-7)
    assert not np.any(vectors[-1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's e-mail, isn’t it?", ["The", "cat's", "e-mail", ",", "isn’t", "it", "?"]),
        ("  one\ttwo\nthree ", ["one", "two", "three"]),
        ("naïve 東京 3.5%", ["naïve", "東京", "3", ".", "5", "%"]),
        ("-- 'quoted'", ["-", "-", "'", "quoted", "'"]),
        ("", []),
    ],
)
def test_splits_words_and_punctuation(text, words):
    assert split(text, 99) == words
    assert split(text, 2) == words[:2]


@given(st.text())
def test_splitting_loses_nothing_but_white_space(text):
    assert "".join(split(text, len(text))) == "".join(text.split())


def test_white_space_of_any_length_separates_words(server):
    text = ("the" + " " * 10_000 + "cat\n") * 100
    assert embed(server, input=text)["usage"]["prompt_tokens"] == 200


def test_takes_a_limited_number_of_joined_parts(server):
    response = server.client.post("/v1/embeddings", json={"input": ["a'b-" * 20_000] * 2})
    assert "apostrophes and hyphens" in error_of(response, 413)["message"]


@given(st.text(alphabet="ab'’-. \t\n\u2003é", max_size=40), st.integers(1, 12))
def test_the_first_words_are_the_same_for_any_limit(text, most):
    assert split(text, most) == split(text, 100)[:most]
