import sys

import numpy as np
import pytest

import smallfry
from smallfry.errors import InputError, NoVocabularyError, OutOfVocabularyError, SfqError, StoreClosedError
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import DIMS, KINDS, plain_decode, random_table

WORDS = ["the", "of", "New York", "a\0b", "", "🍟"]


@pytest.fixture
def path(tmp_path):
    sfq.write(
        tmp_path / "t.sfq", random_table(6, 7, 2, "uniform", parts=("zero_rows",)), Vocabulary.build(WORDS)
    )
    return tmp_path / "t.sfq"


@pytest.fixture
def store(path):
    return smallfry.open(path)


@pytest.mark.parametrize("tokens", [None, WORDS, Vocabulary.build(WORDS)])
def test_saved_table_is_opened_with_its_tokens(tmp_path, tokens):
    table = smallfry.quantize(np.eye(6, dtype=np.float32), 4)
    smallfry.save(tmp_path / "t.sfq", table, tokens)
    store = smallfry.open(tmp_path / "t.sfq")
    np.testing.assert_array_equal(store.rows(range(6)), table.decode())
    assert (store.vocabulary and list(store.vocabulary)) == (tokens and WORDS)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("nbit", KINDS)
def test_lookups_equal_a_decode_with_plain_numpy_bit_for_bit(tmp_path, nbit, dim):
    table = random_table(6, dim, nbit, KINDS[nbit][0], parts=("zero_rows",))
    sfq.write(tmp_path / "t.sfq", table, Vocabulary.build(WORDS))
    vectors, found = smallfry.open(tmp_path / "t.sfq").lookup([*reversed(WORDS), "the", "no-such-word"])
    expected = np.vstack([plain_decode(table)[[5, 4, 3, 2, 1, 0, 0]], np.zeros((1, dim), np.float32)])
    np.testing.assert_array_equal(vectors.view(np.uint32), expected.view(np.uint32))
    assert found.tolist() == [True] * 7 + [False]


def test_empty_list_returns_an_empty_array(store):
    vectors, found = store.lookup([])
    assert (vectors.shape, vectors.dtype) == ((0, 7), np.float32)
    assert (found.shape, found.dtype) == ((0,), np.bool_)


def test_rows_are_the_vectors_of_their_tokens(store):
    np.testing.assert_array_equal(store.rows([2, 0]), store.lookup(["New York", "the"])[0])
    assert store.rows([]).shape == (0, 7)


@pytest.mark.parametrize("row", [-1, 6, 2**40])
def test_row_out_of_range_is_an_index_error(store, row):
    with pytest.raises(IndexError, match=rf"{row}.*6"):
        store.rows([0, row])


def test_codes_are_packed_rows_and_zeros_for_no_row(store):
    codes = store.codes([3, -1])
    np.testing.assert_array_equal(codes[0], store.table.codes[3])
    assert codes[1].tolist() == [0, 0]


def test_tokens_are_found_at_their_rows_and_back(store):
    assert store.find([*WORDS, "No York"]).tolist() == [0, 1, 2, 3, 4, 5, -1]
    assert [store.token(row) for row in range(6)] == WORDS == list(store)
    assert len(store) == 6
    assert "New York" in store
    assert "York" not in store
    assert 7 not in store


def test_lone_surrogate_is_an_unknown_token(store):
    assert store.lookup(["\ud83c"])[1].tolist() == [False]


@pytest.mark.parametrize("tokens", ["the", b"the", [1], [None], ["the", b"of"]])
def test_anything_but_a_list_of_strings_is_a_type_error(store, tokens):
    with pytest.raises(TypeError, match="expected"):
        store.lookup(tokens)


def test_unknown_tokens_get_the_mean_of_all_rows(path):
    store = smallfry.open(path, oov="mean")
    mean = plain_decode(store.table).astype(np.float64).mean(axis=0).astype(np.float32)
    vectors, found = store.lookup(["the", "no-such-word"])
    np.testing.assert_array_equal(vectors[1], mean)
    assert found.tolist() == [True, False]


def test_mean_of_many_rows_is_their_mean_in_float64(tmp_path):
    table = random_table(9000, 3, 8, "lloyd")
    sfq.write(tmp_path / "t.sfq", table)
    mean = plain_decode(table).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(smallfry.open(tmp_path / "t.sfq").mean, mean, rtol=1e-6)


def test_unknown_tokens_raise_and_are_named_once_each_in_order(path):
    store = smallfry.open(path, oov="error")
    with pytest.raises(OutOfVocabularyError) as caught:
        store.lookup(["y", "the", "x", "y"])
    assert caught.value.tokens == ["y", "x"]
    assert store.lookup(["the"])[1].tolist() == [True]


def test_unknown_tokens_get_the_vector_of_a_named_token(path):
    vectors, found = smallfry.open(path, unk="of").lookup(["no-such-word", "of"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert found.tolist() == [False, True]


def test_one_lookup_can_have_its_own_policy(path):
    store = smallfry.open(path, unk="of")
    assert not store.lookup(["x"], oov="zero")[0].any()
    np.testing.assert_array_equal(store.lookup(["x"], oov="mean")[0][0], store.mean)
    with pytest.raises(OutOfVocabularyError):
        store.lookup(["x"], oov="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oov": "random"}, "'random', expected 'zero', 'mean' or 'error'"),
        ({"unk": "<unk>"}, "'<unk>' is not in the vocabulary"),
        ({"unk": "of", "oov": "mean"}, "exclude each other"),
    ],
)
def test_policy_that_cannot_work_is_rejected_at_opening(path, options, message):
    with pytest.raises(InputError, match=message):
        smallfry.open(path, **options)


def test_unknown_policy_of_a_lookup_is_rejected(store):
    with pytest.raises(InputError, match="random"):
        store.lookup(["x"], oov="random")


def test_table_without_vocabulary_is_known_by_row_only(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"))
    store = smallfry.open(tmp_path / "t.sfq")
    assert store.rows([0]).shape == (1, 7)
    assert store.nbytes["tokens"] == store.baseline_nbytes["dict"] == 0
    for use in (
        lambda: store.lookup(["a"]),
        lambda: store.token(0),
        lambda: "a" in store,
        lambda: list(store),
    ):
        with pytest.raises(NoVocabularyError, match="no vocabulary, only 4 row numbers"):
            use()


def test_bytes_by_part_add_up_to_what_the_file_holds(store, path):
    parts = dict(store.nbytes)
    total = parts.pop("total")
    assert set(parts) == {
        *("codes", "codebook", "mean", "row_scale", "zero_rows"),
        *("tokens", "token_offsets", "token_index"),
    }
    assert total == sum(parts.values()) == path.stat().st_size - 4096
    assert parts["codes"] == 6 * 2


def test_baseline_is_what_float32_and_a_dict_really_take(tmp_path):
    words = [f"word{i}" for i in range(10_000)]
    sfq.write(tmp_path / "t.sfq", random_table(10_000, 3, 1, "uniform"), Vocabulary.build(words))
    baseline = smallfry.open(tmp_path / "t.sfq").baseline_nbytes
    assert baseline["float32"] == 10_000 * 3 * 4
    assert baseline["total"] == baseline["float32"] + baseline["dict"]
    rows = {word: row for row, word in enumerate(words)}
    real = sys.getsizeof(rows) + sum(-(-sys.getsizeof(word) // 16) * 16 + 32 for word in words)
    assert 0.75 * real < baseline["dict"] <= real


def test_closed_store_says_so_and_its_arrays_live_on(path):
    with smallfry.open(path) as store:
        codes = store.table.codes
        vectors = store.rows([0])
    assert codes.shape == (6, 2)
    assert vectors.shape == (1, 7)
    for use in (
        lambda: store.lookup(["the"]),
        lambda: store.rows([0]),
        lambda: len(store),
        lambda: "x" in store,
    ):
        with pytest.raises(StoreClosedError, match="closed"):
            use()
    store.close()
    assert "closed" in repr(store)


def test_metadata_and_the_digest_are_those_of_the_file(store, path):
    assert store.metadata["nbit"] == "2"
    assert store.digest == sfq.map(path).header.digest
    assert (store.dim, store.nbit, store.path) == (7, 2, path)
    assert repr(store) == f"<Store {path} rows=6 dim=7 nbit=2>"


def test_file_that_is_not_a_sfq_file_is_rejected(tmp_path):
    (tmp_path / "t.sfq").write_bytes(b"the 0.1 0.2 0.3\n")
    with pytest.raises(SfqError):
        smallfry.open(tmp_path / "t.sfq")
