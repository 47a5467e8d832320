"""``POST /neighbors``."""

import pytest

import smallfry
from tests.helpers.errors import error_of


def ask(server, **fields):
    response = server.client.post("/neighbors", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_neighbors_of_a_token_are_those_of_the_library(several, files):
    response = ask(several, token="cat", model="large", k=7)
    with smallfry.open(files["large"]) as store:
        expected = store.neighbors("cat", 7)
    assert response["model"] == "large"
    assert [tuple(each.values()) for each in response["neighbors"]] == [
        (each.token, each.row, pytest.approx(each.score, rel=1e-6)) for each in expected
    ]


def test_k_defaults_to_ten(server):
    assert len(ask(server, token="cat")["neighbors"]) == 10


def test_the_vector_of_a_token_is_nearest_to_the_token_itself(server):
    vector = server.lookup({"tokens": ["cat"]}).json()["vectors"][0]
    nearest = ask(server, vector=vector, k=1)["neighbors"]
    assert nearest == [{"token": "cat", "row": 1, "score": 1.0}]


def test_rows_without_a_vocabulary_have_no_token(several):
    nearest = ask(several, id=3, model="ids", k=2)["neighbors"]
    assert [each["token"] for each in nearest] == [None, None]
    assert 3 not in [each["row"] for each in nearest]


def test_response_carries_the_digest(server):
    response = server.client.post("/neighbors", json={"token": "cat"})
    assert response.headers["x-smallfry-digest"] == server.client.get("/models").json()["models"][0]["digest"]


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ({}, "token", "none of token, id, vector"),
        ({"token": "cat", "id": 1}, "token", "token and id"),
        ({"token": 3}, "token", "token is a number"),
        ({"token": "<pad>"}, "token", "no direction"),
        ({"id": 10}, "id", "no direction"),
        ({"id": 12}, "id", "the rows of 'small' are 0 to 11"),
        ({"id": "1"}, "id", "is a string"),
        ({"vector": 1.0}, "vector", "a list of numbers"),
        ({"vector": [1, 2, "3"]}, "vector", "vector[2] is a string"),
        ({"vector": [1, 2]}, "vector", "shape [2], expected [7]"),
        ({"vector": [1e300] * 7}, "vector", "finite"),
        ({"vector": [0] * 7}, "vector", "no direction"),
        ({"token": "cat", "k": 0}, "k", "from 1 to 1000"),
        ({"token": "cat", "k": 1001}, "k", "k is 1001"),
        ({"token": "cat", "k": 2.5}, "k", "k is a number"),
        ({"token": "cat", "n": 5}, "n", "no field 'n'"),
    ],
)
def test_invalid_query_is_rejected(server, query, param, words):
    error = error_of(server.client.post("/neighbors", json=query), 422)
    assert error["param"] == param
    assert words in error["message"]


def test_an_unknown_token_is_named(server):
    error = error_of(server.client.post("/neighbors", json={"token": "no such token"}), 422)
    assert error["code"] == "unknown_token"
    assert "'no such token'" in error["message"]


def test_unknown_model_is_rejected(server):
    error_of(server.client.post("/neighbors", json={"token": "cat", "model": "glove"}), 404)


def test_only_json_is_offered(server):
    error_of(server.client.post("/neighbors", json={"token": "cat"}, headers={"accept": "text/html"}), 406)


def test_route_is_documented(server):
    described = server.client.get("/openapi.json").json()["paths"]["/neighbors"]["post"]
    assert described["requestBody"]["content"]["application/json"]["example"] == {"token": "the", "k": 10}
