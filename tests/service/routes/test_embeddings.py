"""``POST /v1/embeddings``."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smallfry
from service.routes.embeddings import split
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
        ([0, 1], [["the", "cat"]]),
        ([[0, 1], [4]], [["the", "cat"], ["a"]]),
    ],
)
def test_takes_texts_and_token_ids(server, files, given, words):
    data = embed(server, input=given)["data"]
    expected = [mean(files, bag) for bag in words]
    np.testing.assert_allclose([entry["embedding"] for entry in data], expected, rtol=1e-6)


def test_empty_request_has_an_empty_response(server):
    assert embed(server, input=[])["data"] == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 422, "input"),
        ({"input": 3}, 422, "input"),
        ({"input": ["a", 3]}, 422, "input"),
        ({"input": [0, "a"]}, 422, "input"),
        ({"input": [[0], [99]]}, 422, "input"),
        ({"input": [-1]}, 422, "input"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": "a", "dimensions": 3}, 422, "dimensions"),
        ({"input": "a", "inptu": 3}, 422, "inptu"),
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model"),
    ],
)
def test_invalid_requests_are_rejected(server, fields, status, param):
    assert error_of(server.client.post("/v1/embeddings", json=fields), status)["param"] == param


def test_dimensions_must_match_the_model(server):
    assert len(embed(server, input="the", dimensions=7, user="me")["data"][0]["embedding"]) == 7


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
    assert split(text) == words


@given(st.text())
def test_splitting_loses_nothing_but_white_space(text):
    assert "".join(split(text)) == "".join(text.split())


def test_the_openai_package_works_with_it(server, files):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none is needed", max_retries=0)
    for encoding in ("float", openai.NOT_GIVEN):  # not given, it asks for base64 and decodes that itself
        response = client.embeddings.create(model="small", input=["a mat", "the"], encoding_format=encoding)
        expected = [mean(files, ["a", "mat"]), mean(files, ["the"])]
        np.testing.assert_allclose([entry.embedding for entry in response.data], expected, rtol=1e-6)
        assert response.usage.total_tokens == 3
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.embeddings.create(model="gpt", input="the")
    client.close()
