"""Lookups of a column on a cluster return the rows of the store, even if a worker dies."""

import gc
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray

import smallfry
import smallfry.ray
from smallfry.client import Client
from smallfry.errors import InputError, NoVocabularyError
from smallfry.sfq import file as sfq
from tests.helpers.servers import TOKENS, eventually, write_sfq

ROWS, DIM = 2000, 16
WORDS = [*TOKENS, "no-such-word", "", "token-1999", "token-2000", "the"]
LISTS = [WORDS[:length] for length in (3, 0, 1, 17, 5, 0)] * 3


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_sfq(tmp_path_factory.mktemp("bulk") / "words.sfq", ROWS, DIM, 2)


@pytest.fixture(scope="module")
def store(words):
    return smallfry.open(words)


@pytest.fixture(autouse=True)
def quiet(cluster):
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    gc.collect()  # the workers of a failed job keep their CPUs as long as its error lives


def column_of(values):
    """Return a dataset of several blocks with the column ``text``, numbered."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    table = pa.table({"row": range(len(array)), "text": array})
    middle = len(array) // 2
    return ray.data.from_arrow([table[:middle], table[middle:]])


def looked_up(dataset, words, **options):
    """Return the new column in row order, after a check that the other columns are unchanged."""
    name = options.get("output_column") or options.get("output", "vectors")
    found = smallfry.ray.lookup(dataset, "text", words, **options).take_all()
    before = {row["row"]: row["text"] for row in dataset.take_all()}
    assert {row["row"]: list(row["text"]) for row in found} == {i: list(text) for i, text in before.items()}
    return [row[name] for row in sorted(found, key=lambda row: row["row"])]


@pytest.mark.parametrize("oov", ["zero", "mean"])
def test_strings_get_the_vectors_of_the_store(words, store, oov):
    vectors = np.stack(looked_up(column_of(WORDS), words, oov=oov, batch_size=4))
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, store.lookup(WORDS, oov=oov)[0])


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_other_string_types_are_supported(words, store, kind):
    ids = looked_up(column_of(pa.array(WORDS).cast(kind)), words, output="ids", output_column="number")
    assert ids == store.find(WORDS).tolist()


@pytest.mark.parametrize("oov", ["zero", "mean"])
def test_lists_get_a_vector_for_each_token(words, store, oov):
    for tokens, vectors in zip(LISTS, looked_up(column_of(LISTS), words, oov=oov, batch_size=4), strict=True):
        assert vectors.shape == (len(tokens), DIM)
        assert np.array_equal(vectors, store.lookup(tokens, oov=oov)[0])


def test_lists_get_ids(words, store):
    ids = looked_up(column_of(LISTS), words, output="ids", batch_size=4)
    assert [list(of_list) for of_list in ids] == [store.find(tokens).tolist() for tokens in LISTS]


@pytest.mark.parametrize(("pool", "oov"), [("mean", "skip"), ("mean", "zero"), ("sum", "mean")])
def test_pooled_lists_get_one_vector_each(words, pool, oov):
    vectors = looked_up(column_of(LISTS), words, pool=pool, oov=oov, dtype="float16", batch_size=4)
    with Client(f"file://{words}") as client:
        expected = client.lookup(LISTS, pool=pool, oov=oov, dtype="float16").vectors
    assert np.stack(vectors).dtype == np.float16
    assert np.array_equal(np.stack(vectors), expected)


def test_pandas_columns_are_supported(words, store):
    dataset = ray.data.from_pandas(pd.DataFrame({"row": range(len(WORDS)), "text": WORDS}))
    assert looked_up(dataset, words, output="ids") == store.find(WORDS).tolist()


def test_each_node_downloads_the_file_of_a_server_once(words, store, start, tmp_path):
    server = start("--embeddings", f"words={words}", SMALLFRY_API_KEYS="key")
    url, cache = f"{server.address}/models/words", tmp_path / "cache"
    ids = looked_up(column_of(WORDS), url, output="ids", api_key="key", cache=cache)
    assert ids == store.find(WORDS).tolist()
    assert [file.name for file in cache.glob("*.sfq")] == [f"{store.digest}.sfq"]


def test_empty_dataset_gives_no_rows(words):
    assert smallfry.ray.lookup(ray.data.from_items([]), "text", words).take_all() == []
    assert smallfry.ray.lookup(column_of(pa.array([], pa.string())), "text", words).take_all() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "codes"}, "output is 'codes', expected one of vectors, ids"),
        ({"oov": "ignore"}, "oov is 'ignore', expected one of zero, mean, error, skip"),
        ({"pool": "max"}, "pool is 'max', expected one of None, mean, sum"),
        ({"dtype": "int8"}, "dtype is 'int8', expected one of float32, float16"),
        ({"oov": "skip"}, 'oov="skip" omits unknown tokens from a pool'),
        ({"output": "ids", "oov": "mean"}, "oov='mean' needs output=\"vectors\""),
        ({"output": "ids", "dtype": "float16"}, "pool and dtype apply to vectors"),
        ({"column": "texts"}, "the dataset has no column 'texts'; its columns are row, text"),
        ({"column": "row"}, "column 'row' holds int64, expected strings or lists of strings"),
        ({"output_column": "row"}, "the dataset already has a column 'row'"),
        ({"pool": "mean"}, "pool='mean' pools lists, but column 'text' holds strings"),
    ],
)
def test_invalid_options_are_rejected_before_the_job(words, options, message):
    with pytest.raises(InputError, match=message):
        smallfry.ray.lookup(column_of(WORDS), options.pop("column", "text"), words, **options)


def test_missing_file_is_reported_before_the_job(words):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        smallfry.ray.lookup(column_of(WORDS), "text", words.with_name("nowhere.sfq"))


def test_file_without_vocabulary_is_reported_before_the_job(tmp_path):
    numbers = write_sfq(tmp_path / "numbers.sfq", tokens=False)
    with pytest.raises(NoVocabularyError, match="has no vocabulary"):
        smallfry.ray.lookup(column_of(WORDS), "text", numbers)


def test_missing_ray_is_reported(words, monkeypatch):
    dataset = column_of(WORDS)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match=r"pip install 'smallfry\[ray\]'"):
        smallfry.ray.lookup(dataset, "text", words)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["the", 3], "row 1 of a batch of 2 is 3 (int), expected strings or lists of strings, all alike"),
        (["the", ["cat"]], "row 1 of a batch of 2 is ['cat'] (list), expected strings or lists of strings"),
        (["the", "\ud800"], "holds Python objects, such as strings with a lone surrogate"),
        (["the", None], "row 1 of a batch of 2 is None (NoneType), expected strings or lists of strings"),
        ([["the"], None], "row 1 of a batch of 2 is None (NoneType), expected strings or lists of strings"),
        ([["the"], ["cat", None]], "row 1 of a batch of 2 has None (NoneType) at 1, expected strings only"),
        ([{"a": 1}, {"a": 2}], "column 'text' holds struct<a: int64>, expected strings or lists of strings"),
    ],
)
def test_invalid_row_ends_the_job(words, values, message):
    dataset = ray.data.from_pandas(pd.DataFrame({"text": pd.Series(values, dtype=object)}))
    untyped = dataset.map_batches(lambda batch: batch, batch_format="pyarrow")
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        smallfry.ray.lookup(untyped, "text", words).take_all()
    assert message in str(caught.value)


def test_unknown_tokens_end_the_job_with_oov_error(words):
    dataset = ray.data.from_items([{"text": WORDS}])
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        smallfry.ray.lookup(dataset, "text", words, output="ids", oov="error").take_all()
    assert "3 tokens are not in the vocabulary: 'no-such-word', '', 'token-2000'" in str(caught.value)


def test_file_replaced_after_the_job_was_created_ends_it(words, tmp_path):
    file = write_sfq(tmp_path / "words.sfq")
    job = smallfry.ray.lookup(column_of(WORDS), "text", file)
    sfq.write(file, smallfry.open(words).table, smallfry.open(words).vocabulary)
    with pytest.raises(ray.exceptions.RayError, match="all nodes need the same file"):
        job.take_all()


COUNT, STOP_AT = 1_200_000, 650_000


def corpus(words, folder):
    """Return numbered rows of one word each; the first worker that reaches STOP_AT waits to be killed."""
    column = pa.array(words)
    stopped, resumed = folder / "stopped", folder / "resumed"

    # Workers cannot import this module; nested functions are pickled by value.
    def add_words(batch):
        rows = batch.column("id").to_numpy()
        if STOP_AT in rows:
            stop_once(str(os.getpid()))
        return batch.append_column("word", column.take(rows % len(column)))

    def stop_once(pid):
        if stopped.exists():
            resumed.write_text(pid)
            return
        stopped.with_suffix(".part").write_text(pid)
        stopped.with_suffix(".part").rename(stopped)
        time.sleep(60)
        raise AssertionError("the worker was not killed")

    numbered = ray.data.range(COUNT, override_num_blocks=12)
    # With small blocks, the killed worker has already delivered a part of its rows.
    numbered.context.target_max_block_size = 1 << 20
    return numbered.map_batches(add_words, batch_size=10_000, batch_format="pyarrow")


def kill(stopped):
    """Kill the waiting worker after a check that it belongs to the job."""
    eventually(stopped.exists, 60)
    process = Path("/proc", stopped.read_text())
    assert b"_Lookup" in (process / "cmdline").read_bytes()
    os.kill(int(process.name), signal.SIGKILL)


def test_each_row_comes_once_if_a_worker_is_killed(words, store, tmp_path):
    vocabulary = [f"token-{row}" for row in range(ROWS + 200)]
    vectors, found = store.lookup(vocabulary)
    assert 0 < found.sum() < len(found)
    stopped, resumed = tmp_path / "stopped", tmp_path / "resumed"
    job = smallfry.ray.lookup(corpus(vocabulary, tmp_path), "word", words)
    seen = np.zeros(COUNT, np.int64)
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill, stopped)
        for batch in job.iter_batches(batch_size=None):
            np.add.at(seen, batch["id"], 1)
            assert np.array_equal(batch["vectors"], vectors[batch["id"] % len(vocabulary)])
        killing.result()
    assert (seen.min(), seen.max()) == (1, 1)
    assert resumed.read_text() != stopped.read_text()
    assert not Path("/proc", stopped.read_text()).exists()
