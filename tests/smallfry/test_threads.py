"""One store under many threads, and in the children of a fork."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import smallfry
from smallfry import kernels
from smallfry.errors import StoreClosedError
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import random_table

THREADS, ROUNDS = 64, 8
ROWS, DIM = 3000, 96
WORDS = [f"word {i}" for i in range(ROWS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "t.sfq"
    table = random_table(ROWS, DIM, 2, "uniform", parts=("mean", "row_scale", "zero_rows"))
    sfq.write(path, table, Vocabulary.build(WORDS))
    return smallfry.open(path)


def use(store, seed):
    """Return the results of every kind of lookup, for rows that the seed picks."""
    ids = np.random.default_rng(seed).integers(0, ROWS, 1500)
    vectors, found = store.lookup([WORDS[row] for row in ids] + ["?"])
    results = [vectors, found, store.rows(ids), store.codes(ids), store.table.bag(ids, [0, 700], "mean")]
    results += [
        store.fill("mean"),
        np.array([near.row for near in store.neighbors(vectors[0] + 1, 3, threads=2)]),
    ]
    return b"".join(result.tobytes() for result in results)


def test_64_threads_get_the_results_of_one(store):
    expected = [use(store, seed) for seed in range(4)]
    wrong = []
    together = threading.Barrier(THREADS)

    def look_up(number):
        together.wait()
        for turn in range(ROUNDS if kernels.native else 1):
            seed = (number + turn) % 4
            if use(store, seed) != expected[seed]:
                wrong.append((number, turn))

    threads = [threading.Thread(target=look_up, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_get_the_results_of_the_parent(store):
    expected = use(store, 0)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = int(use(store, 0) != expected)
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4


def test_store_closed_during_a_lookup_returns_or_raises(store):
    expected = use(store, 0)

    def look_up(opened):
        while True:
            try:
                assert use(opened, 0) == expected
            except StoreClosedError:
                return

    for _ in range(ROUNDS):
        opened = smallfry.open(store.path)
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(look_up, opened) for _ in range(4)]
            opened.close()
            for each in running:
                each.result()
