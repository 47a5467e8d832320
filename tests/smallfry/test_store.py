import pickle
import sys
from dataclasses import replace

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


@pytest.fixture
def words(tmp_path):
    """A 32-bit store of 50 words of 8 dimensions, and their matrix."""
    matrix = np.random.default_rng(0).standard_normal((50, 8), np.float32)
    return smallfry.save(tmp_path / "w.sfq", matrix, [f"w{i}" for i in range(50)], 32), matrix


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("nbit", KINDS)
def test_lookups_equal_a_decode_with_plain_numpy_bit_for_bit(tmp_path, nbit, dim):
    table = random_table(6, dim, nbit, KINDS[nbit][-1], parts=("zero_rows",))
    sfq.write(tmp_path / "t.sfq", table, Vocabulary.build(WORDS))
    vectors, found = smallfry.open(tmp_path / "t.sfq").lookup([*reversed(WORDS), "the", "no-such-word"])
    expected = np.vstack([plain_decode(table)[[5, 4, 3, 2, 1, 0, 0]], np.zeros((1, table.dim), np.float32)])
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
    table = random_table(9000, 3, 8, "exact")
    sfq.write(tmp_path / "t.sfq", table)
    mean = plain_decode(table).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(smallfry.open(tmp_path / "t.sfq").mean, mean, rtol=1e-6)


def test_unknown_tokens_raise_and_are_named_once_each_in_order(path):
    store = smallfry.open(path, oov="error")
    with pytest.raises(OutOfVocabularyError) as caught:
        store.lookup(["y", "the", "x", "y"])
    assert caught.value.tokens == ["y", "x"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
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
        *("codes", "codebook", "mean", "column_scale", "row_scale", "zero_rows", "rotation", "head_offsets"),
        *("tokens", "token_offsets", "token_index", "tokenizer"),
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


def test_key_is_a_token_or_a_row_and_a_list_of_keys_gives_a_matrix(store):
    rows = store.rows(range(6))
    np.testing.assert_array_equal(store["New York"], rows[2])
    np.testing.assert_array_equal(store[5], rows[5])
    np.testing.assert_array_equal(store[["🍟", "the"]], rows[[5, 0]])
    np.testing.assert_array_equal(store[("of", 2, np.int32(0))], rows[[1, 2, 0]])
    np.testing.assert_array_equal(store[np.array(["of", "the"])], rows[[1, 0]])
    assert (store["the"].dtype, store["the"].shape, store[[]].shape) == (np.float32, (7,), (0, 7))


@pytest.mark.parametrize("key", ["york", ["the", "york"]])
def test_unknown_key_is_a_key_error_under_every_policy(path, key):
    with pytest.raises(KeyError) as caught:
        smallfry.open(path, oov="mean")[key]
    assert isinstance(caught.value, OutOfVocabularyError)
    assert str(caught.value).startswith("1 token is not in the vocabulary: 'york'.")


def test_message_about_unknown_tokens_stays_short(store):
    with pytest.raises(KeyError) as caught:
        store[[f"{i}" * 1000 for i in range(10)]]
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "error"),
    [(6, IndexError), (-1, IndexError), (b"the", TypeError), ([b"the"], TypeError), (1.5, TypeError)],
)
def test_key_of_another_kind_is_rejected(store, key, error):
    with pytest.raises(error):
        store[key]


def test_most_similar_tokens_are_the_nearest_to_the_sum_of_unit_vectors(words):
    store, matrix = words
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    query = unit[1] + 0.5 * unit[2] + matrix[3] - unit[4] - 2 * unit[5]
    cosines = unit @ (query / np.linalg.norm(query))
    nearest = [row for row in np.argsort(-cosines) if row not in (1, 2, 4, 5)][:7]
    found = store.most_similar(["w1", ("w2", 0.5), matrix[3]], [4, ("w5", -2.0)], topn=7)
    assert [token for token, _ in found] == [f"w{row}" for row in nearest]
    np.testing.assert_allclose([cosine for _, cosine in found], cosines[nearest], atol=1e-6)
    assert all(type(cosine) is float for _, cosine in found)


def test_one_key_stands_for_a_list_of_it(words):
    store, matrix = words
    expected = [(neighbor.token, neighbor.score) for neighbor in store.neighbors("w1", 5)]
    for key in ("w1", 1, ["w1"], ("w1",), [("w1", 3.0)]):
        assert store.most_similar(key, topn=5) == expected
    assert store.most_similar(matrix[1], topn=6)[0] == ("w1", 1.0)
    assert store.most_similar(matrix[1:2], topn=6)[1:] == expected
    assert store.most_similar(negative=-matrix[1], topn=6)[1:] == expected


def test_most_similar_of_more_than_all_is_all_and_of_none_is_empty(words):
    assert len(words[0].most_similar("w1", topn=100)) == 49
    assert words[0].most_similar("w1", topn=0) == []


@pytest.mark.parametrize(
    ("positive", "error", "message"),
    [
        (["w1", "x"], KeyError, "not in the vocabulary: 'x'"),
        ([50], IndexError, "50"),
        ([np.ones(3)], InputError, r"shape \[3\], expected \[8\]"),
        ([0.5, 0.5], TypeError, "float, expected str"),
        (None, InputError, "all zeros"),
    ],
)
def test_query_without_a_direction_or_a_row_is_rejected(words, positive, error, message):
    with pytest.raises(error, match=message):
        words[0].most_similar(positive)


def test_similarity_is_the_cosine_and_0_for_zeros(tmp_path):
    store = smallfry.save(tmp_path / "t.sfq", [[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]], ["a", "b", "zero"], 32)
    assert store.similarity("a", "b") == pytest.approx(0.96)
    assert store.similarity("a", "a") == pytest.approx(1)
    assert store.similarity("a", "zero") == 0
    with pytest.raises(OutOfVocabularyError):
        store.similarity("a", "c")


def test_rotated_store_has_the_similar_tokens_of_the_original_basis(tmp_path):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0].astype(np.float32)
    table = replace(random_table(50, 8, 3, "trellis"), rotation=basis)
    sfq.write(tmp_path / "r.sfq", table, Vocabulary.build([f"w{i}" for i in range(50)]))
    rotated = smallfry.open(tmp_path / "r.sfq")
    original = rotated.unrotated(np.asarray(rotated))
    np.testing.assert_allclose(original, np.asarray(rotated) @ basis.T)
    plain = smallfry.save(tmp_path / "p.sfq", original, rotated.vocabulary, 32)
    query = (["w1", "w2"], ["w3"])
    assert [token for token, _ in rotated.most_similar(*query)] == [
        token for token, _ in plain.most_similar(*query)
    ]


def test_real_vectors_have_the_similar_words_and_cosines_that_gensim_finds(tmp_path, real_data):
    gensim_models = pytest.importorskip("gensim.models")
    matrix = np.load(real_data / "embeddings" / "googlenews-8000.300d.npy").astype(np.float32)
    words = (real_data / "embeddings" / "googlenews-8000.txt").read_text().split()
    theirs = gensim_models.KeyedVectors(300)
    theirs.add_vectors(words, matrix)
    ours = smallfry.save(tmp_path / "t.sfq", theirs, nbit=32)
    np.testing.assert_array_equal(np.asarray(ours), theirs.vectors)
    np.testing.assert_array_equal(ours[["king", "Paris"]], theirs[["king", "Paris"]])
    assert ours.similarity("king", "Paris") == pytest.approx(theirs.similarity("king", "Paris"), abs=1e-6)
    for query in (
        {"positive": "king"},
        {"positive": ["Paris", "Germany"], "negative": ["France"]},
        {"positive": [("king", 2.0), "women", 5, matrix[7]], "negative": ["men", ("city", 0.5)], "topn": 100},
    ):
        found, expected = ours.most_similar(**query), theirs.most_similar(**query)
        assert [token for token, _ in found] == [token for token, _ in expected]
        np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=1e-6)


def test_array_of_a_store_is_a_new_matrix_of_its_rows(store):
    matrix = np.asarray(store)
    np.testing.assert_array_equal(matrix, store.rows(range(6)))
    assert matrix.dtype == np.float32
    assert matrix.flags.writeable
    assert np.asarray(store, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="always a copy"):
        store.__array__(copy=False)


def test_metadata_and_the_digest_are_those_of_the_file(store, path):
    assert store.metadata["nbit"] == "2"
    assert store.digest == sfq.map(path).header.digest
    assert (store.dim, store.nbit, store.path) == (7, 2, path)
    assert repr(store) == f"<Store {path} rows=6 dim=7 nbit=2>"


def test_file_that_is_not_a_sfq_file_is_rejected(tmp_path):
    (tmp_path / "t.sfq").write_bytes(b"the 0.1 0.2 0.3\n")
    with pytest.raises(SfqError):
        smallfry.open(tmp_path / "t.sfq")
