"""The cache of hot tokens."""

import time

import numpy as np
import pytest

from smallfry.client.cache import ENTRY_BYTES, TokenCache
from smallfry.client.lookup import DecodedRows, ModelVersion
from tests.helpers.scripted_server import ScriptedServer, rows

MEGABYTE = 1 << 20


def values(result):
    return result.vectors[:, 0].tolist()


def bodies(server):
    return [request.partition(b"\r\n\r\n")[2] for request in server.requests]


def test_token_is_requested_once(connect):
    with ScriptedServer(rows(1.0, 2.0), rows(3.0)) as server:
        client = connect(server.url, cache_bytes=MEGABYTE)
        assert values(client.lookup(["a", "b"])) == [1.0, 2.0]
        assert values(client.lookup(["b", "a", "b"])) == [2.0, 1.0, 2.0]
        assert values(client.lookup(["b", "c", "a"])) == [2.0, 3.0, 1.0]
        assert bodies(server) == [b'{"tokens":["a","b"]}', b'{"tokens":["c"]}']


def test_cached_results_are_those_of_the_file(connect, server, files):
    client = connect(server.address, model="wide", cache_bytes=MEGABYTE)
    local = connect(f"file://{files['wide']}")
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = [f"token-{row}" for row in rng.integers(0, 60, 50)]
        bags = [tokens[:20], [], tokens[20:]]
        for requested, options in ((tokens, {}), (bags, {"pool": "mean"}), (tokens, {"oov": "mean"})):
            result, expected = client.lookup(requested, **options), local.lookup(requested, **options)
            assert result.vectors.tobytes() == expected.vectors.tobytes()
            assert result.found.tolist() == expected.found.tolist()


def test_a_change_of_the_model_empties_the_cache(connect):
    with ScriptedServer(rows(1.0), rows(5.0, digest="d1"), rows(6.0, digest="d1")) as server:
        client = connect(server.url, cache_bytes=MEGABYTE)
        assert values(client.lookup(["a"])) == [1.0]
        result = client.lookup(["a", "b"])
        assert values(result) == [6.0, 5.0]
        assert result.digest == "d1"
        assert bodies(server)[1:] == [b'{"tokens":["b"]}', b'{"tokens":["a"]}']


def test_expired_tokens_are_requested_again(connect, monkeypatch):
    with ScriptedServer(rows(1.0), rows(2.0)) as server:
        client = connect(server.url, cache_bytes=MEGABYTE, cache_seconds=60)
        client.lookup(["a"])
        later = time.monotonic() + 61
        monkeypatch.setattr("smallfry.client.cache.time.monotonic", lambda: later)
        result = client.lookup(["a"])
        monkeypatch.undo()
    assert values(result) == [2.0]


def test_each_model_has_its_own_vectors(connect):
    with ScriptedServer(rows(1.0, model="m"), rows(2.0, model="n", digest="d1")) as server:
        client = connect(server.url, cache_bytes=MEGABYTE)
        for _ in range(2):
            assert values(client.lookup(["a"], model="m")) == [1.0]
            assert values(client.lookup(["a"], model="n")) == [2.0]


@pytest.fixture
def cache():
    return TokenCache(4 * (ENTRY_BYTES + 1 + 8), 60.0)


VERSION = ModelVersion("m", "d", 2)


def put(cache, tokens, version=VERSION):
    cache.put(
        None, tokens, DecodedRows(np.ones((len(tokens), 2), np.float32), np.ones(len(tokens), bool), version)
    )


def test_least_recently_used_tokens_are_evicted_first(cache):
    put(cache, "abcd")
    cache.get(None, "a")
    put(cache, "e")
    known = cache.get(None, "abcde")
    assert [row is not None for row in known.rows] == [True, False, True, True, True]


def test_the_cache_stays_within_its_bytes(cache):
    for i in range(100):
        put(cache, [f"token-{i}"])
    known = cache.get(None, [f"token-{i}" for i in range(100)])
    assert sum(row is not None for row in known.rows) == 3


def test_unknown_tokens_are_remembered_too(cache):
    cache.put(None, "ab", DecodedRows(np.ones((2, 2), np.float32), np.array([True, False]), VERSION))
    result = cache.get(None, "ba").merge(None)
    assert result.found.tolist() == [False, True]
    assert result.vectors.tolist() == [[0, 0], [1, 1]]
