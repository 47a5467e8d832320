"""``POST /neighbors``."""

import json
import select
import socket

import numpy as np
import pytest

import smallfry
from service.routes.neighbors import MAX_TOKEN_BYTES, WAITING
from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.table import MAX_DIM, Table
from smallfry.vocabulary import Vocabulary
from tests.helpers.errors import error_of
from tests.helpers.metrics import difference, gauge
from tests.helpers.servers import eventually


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
        ({"vector": [1, 2, "3", 4, 5, 6, 7]}, "vector", "vector[2] is a string"),
        ({"vector": [1, 2]}, "vector", "has 2 values; 'small' has 7 dimensions"),
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


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A file whose search takes a second without vector instructions."""
    path = tmp_path_factory.mktemp("big") / "big.sfq"
    codes = np.zeros((1_000_000, 64), np.uint8)
    sfq.write(path, Table(codes, 512, 1, "uniform", np.array([-1, 1], np.float32), 1.0))
    return path


@pytest.fixture(scope="module")
def busy(big, files, start):
    """A server with one slot for lookups."""
    options = "--max-concurrent-requests", "1", "--max-queue", "0"
    return start(big, files["small"], *options, SMALLFRY_SIMD="scalar")


class OpenSearch(socket.socket):
    """A search that has been sent."""

    def __init__(self, server):
        super().__init__()
        host, port = server.address.removeprefix("http://").split(":")
        body = json.dumps({"model": "big", "id": 0}).encode()
        head = f"POST /neighbors HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.connect((host, int(port)))
        self.sendall(head.encode() + body)


def fill(server):
    """Take all places of searches; return these, after the others have been rejected."""
    searches = [OpenSearch(server) for _ in range(30)]
    rejected = 0
    while rejected < 29 - WAITING:
        for search in select.select(searches, [], [], 30)[0]:
            assert search.recv(1 << 16).startswith(b"HTTP/1.1 429")
            rejected += 1
            searches.remove(search)
            search.close()
    assert len(searches) == 1 + WAITING
    return searches


def leave(searches):
    for search in searches:
        search.close()


def test_few_searches_wait_and_more_are_rejected(busy):
    searches = fill(busy)
    leave(searches[2:])
    for search in searches[:2]:
        assert search.recv(12) == b"HTTP/1.1 200"
        search.close()


def test_searches_hold_no_slot_of_lookups(busy):
    searches = fill(busy)
    for _ in range(3):
        assert busy.lookup({"tokens": ["the"], "model": "small"}).status_code == 200
    leave(searches)


def test_searches_end_when_their_clients_leave(busy):
    def ended():
        return gauge(busy, "smallfry_in_flight_requests") == 1  # the request that asks

    def act():
        leave(fill(busy))
        eventually(ended)

    eventually(ended)
    counted = difference(busy, act)["smallfry_requests_total"]
    assert counted["/neighbors", "499"] == 1 + WAITING
    assert counted["/neighbors", "200"] == 0
    assert len(ask(busy, model="big", id=0)["neighbors"]) == 10


def test_search_times_out(big, start):
    server = start(big, "--request-timeout", "0.1", SMALLFRY_SIMD="scalar")
    response = server.client.post("/neighbors", json={"id": 0})
    assert error_of(response, 504)["code"] == "search_timeout"
    assert response.headers["retry-after"] == "1"


def test_long_tokens_of_a_response_are_bounded(start, tmp_path):
    names = [letter * (MAX_TOKEN_BYTES // 8) for letter in "abcdefghij"]
    matrix = np.random.default_rng(0).standard_normal((10, 4), np.float32)
    sfq.write(tmp_path / "long.sfq", quantize(matrix, 4), Vocabulary.build(names))
    server = start(tmp_path / "long.sfq")
    found = server.client.post("/neighbors", json={"id": 0, "k": 8}).json()["neighbors"]
    assert [each["token"] for each in found] == [names[each["row"]] for each in found]
    error = error_of(server.client.post("/neighbors", json={"id": 0, "k": 9}), 422)
    assert "4718592 bytes, at most 4194304" in error["message"] and error["param"] == "k"


def test_the_widest_vectors_are_searched(start, tmp_path):
    codes = np.zeros((2, MAX_DIM // 8), np.uint8)
    table = Table(codes, MAX_DIM, 1, "uniform", np.array([-1, 1], np.float32), 1.0)
    sfq.write(tmp_path / "wide.sfq", table)
    server = start(tmp_path / "wide.sfq")
    body = {"model": "wide", "k": 1, "vector": [-1] * MAX_DIM}
    assert server.client.post("/neighbors", json=body).json()["neighbors"][0]["row"] == 0
