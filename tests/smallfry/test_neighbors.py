"""Nearest rows by cosine: exact, and the same on every path."""

import sys
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smallfry
from smallfry import kernels
from smallfry.errors import InputError, OutOfVocabularyError
from smallfry.kernels.numpy import neighbors as fallback
from smallfry.neighbors import nearest
from smallfry.sfq import file as sfq
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import KINDS, PARTS, plain_decode, random_table, tables


def plain_nearest(table, query, k, exclude=-1):
    """Score every decoded row in float64."""
    rows, query = plain_decode(table).astype(np.float64), query.astype(np.float64)
    with np.errstate(invalid="ignore"):
        scores = (rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))).astype(np.float32)
    kept = [row for row in range(table.rows) if np.isfinite(scores[row]) and row != exclude]
    return sorted(kept, key=lambda row: (-scores[row], row))[:k], scores


def query_of(table, seed=0):
    return np.random.default_rng(seed).standard_normal(table.dim, np.float32)


def floats(rows, zero_rows=()):
    rows = np.asarray(rows, np.float32)
    return Table(
        rows, rows.shape[1], 32, "float", None, float(abs(rows).max()),
        zero_rows=np.array(zero_rows, np.uint32),
    )  # fmt: skip


@given(tables(), st.integers(1, 14), st.integers(0, 1000))
def test_nearest_rows_are_those_of_the_greatest_cosine(table, k, seed):
    query = query_of(table, seed)
    ids, scores = nearest(table, query, k)
    wanted, all_scores = plain_nearest(table, query, k)
    assert np.allclose(scores, all_scores[wanted], rtol=1e-5, atol=1e-6)
    assert len(set(ids.tolist())) == len(ids) == len(wanted)
    assert np.allclose(scores, all_scores[ids], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("nbit", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 300])
def test_every_path_gives_the_same_bytes(monkeypatch, level, nbit, dim):
    monkeypatch.setenv("SMALLFRY_SIMD", level)
    if kernels.simd() != level:
        pytest.skip(f"this machine has no {level}")
    table = random_table(700, dim, nbit, KINDS[nbit][-1], parts=PARTS)
    native = kernels.nearest(table.decoder, query_of(table), 40, 3, 1, bytearray(1))
    plain = fallback.nearest(table.decoder, query_of(table), 40, 3, 1, bytearray(1))
    assert [array.tobytes() for array in native] == [array.tobytes() for array in plain]


def test_any_number_of_threads_gives_the_same_bytes():
    table = random_table(20_000, 300, 2, "uniform")
    results = [nearest(table, query_of(table), 50, threads=threads) for threads in (1, 2, 5)]
    assert len({(ids.tobytes(), scores.tobytes()) for ids, scores in results}) == 1


def test_equal_cosines_come_by_row_number():
    table = floats([[1, 0], [0, 1], [2, 0], [0.5, 0]])
    ids, scores = nearest(table, [3, 0])
    assert ids.tolist() == [0, 2, 3, 1]
    assert scores.tolist() == [1, 1, 1, 0]


def test_row_of_zeros_is_near_to_nothing():
    table = floats([[1, 0], [7, 7], [-1, 0]], zero_rows=[1])
    assert nearest(table, [1, 0])[0].tolist() == [0, 2]


@pytest.mark.parametrize("scale", [1e-38, 1e30])
def test_scale_of_the_values_does_not_matter(scale):
    rows = np.random.default_rng(0).standard_normal((50, 5))
    ids = nearest(floats(rows * scale), rows[7] * scale)[0]
    assert ids.tolist() == nearest(floats(rows), rows[7])[0].tolist()


def test_row_that_is_excluded_is_left_out():
    table = floats(np.eye(4))
    assert nearest(table, [0, 1, 0, 0], 4, exclude=1)[0].tolist() == [0, 2, 3]


def test_more_neighbors_than_rows_gives_all_rows():
    assert nearest(floats(np.eye(3)), [1, 2, 3], 100)[0].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("query", "k", "words"),
    [
        ([1, 2, 3], 1, r"shape \[3\], expected \[2\]"),
        ([[1, 2]], 1, r"shape \[1, 2\]"),
        ([1, np.nan], 1, "value 1 of the query is nan"),
        ([0, 0], 1, "no direction"),
        ([1, 0], 0, "k is 0"),
    ],
)
def test_query_that_cannot_be_used_is_rejected(query, k, words):
    with pytest.raises(InputError, match=words):
        nearest(floats(np.eye(2)), query, k)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("neighbors") / "store.sfq"
    table = floats([[1, 0], [0.9, 0.1], [0, 1], [-1, 0], [0, 0]], zero_rows=[4])
    sfq.write(path, table, Vocabulary.build(["north", "northish", "east", "south", "nowhere"]))
    with smallfry.open(path) as store:
        yield store


def test_token_has_named_neighbors_and_is_none_of_them(store):
    found = store.neighbors("north", 2)
    assert [(neighbor.token, neighbor.row) for neighbor in found] == [("northish", 1), ("east", 2)]
    assert found[0].score == pytest.approx(0.9 / 0.82**0.5)


def test_row_number_asks_for_the_same_as_its_token(store):
    assert store.neighbors(0) == store.neighbors(np.int64(0)) == store.neighbors("north")


def test_vector_has_every_row_as_its_neighbor(store):
    assert [neighbor.token for neighbor in store.neighbors([5, 0])] == ["north", "northish", "east", "south"]


def test_unknown_token_has_no_neighbors(store):
    with pytest.raises(OutOfVocabularyError, match="west"):
        store.neighbors("west")


def test_token_whose_vector_is_zeros_has_no_neighbors(store):
    with pytest.raises(InputError, match="no direction"):
        store.neighbors("nowhere")


def test_row_number_outside_the_table_is_rejected(store):
    with pytest.raises(IndexError, match="row id 5 is out of range"):
        store.neighbors(5)


def test_neighbors_without_a_vocabulary_have_no_token(tmp_path):
    sfq.write(tmp_path / "ids.sfq", floats(np.eye(2)), None)
    with smallfry.open(tmp_path / "ids.sfq") as store:
        assert store.neighbors(0) == [(None, 1, 0.0)]


@pytest.mark.skipif(not kernels.native, reason="the NumPy path holds the lock between its steps")
def test_other_threads_run_during_a_search():
    table = random_table(60_000, 300, 4, "uniform")
    decoder, query, steps = table.decoder, query_of(table), []
    started = threading.Event()

    def search():
        started.set()
        for _ in range(20):
            kernels.nearest(decoder, query, 10, -1, 1, bytearray(1))
        steps.append("searched")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here the lock passes on only where it is let go
    try:
        thread = threading.Thread(target=search)
        thread.start()
        started.wait()
        steps.append("ran meanwhile")
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert steps == ["ran meanwhile", "searched"]


@pytest.mark.parametrize("kernel", [kernels.nearest, fallback.nearest])
def test_a_search_that_is_cancelled_reads_no_rows(kernel):
    table = random_table(100, 8, 4, "uniform")
    ids, scores = kernel(table.decoder, query_of(table), 10, -1, 1, bytearray([1]))
    assert len(ids) == len(scores) == 0
    with pytest.raises(CancelledError):
        nearest(table, query_of(table), cancelled=bytearray([1]))


def test_another_thread_cancels_a_search():
    table, cancelled = random_table(60_000, 300, 4, "uniform"), bytearray(1)

    def search_forever():
        while True:
            nearest(table, query_of(table), cancelled=cancelled)

    timer = threading.Timer(0.05, cancelled.__setitem__, (0, 1))
    timer.start()
    with pytest.raises(CancelledError):
        search_forever()
    timer.join()
