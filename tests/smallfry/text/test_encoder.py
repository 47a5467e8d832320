import os
import threading

import numpy as np
import pytest

import smallfry
from smallfry.errors import InputError, StoreClosedError
from tests.helpers.text_models import TEXTS, TOKENIZERS, write_text_model


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def path(tmp_path_factory, kind):
    return write_text_model(tmp_path_factory.mktemp("encoder") / "t.sfq", kind, rows=20, nbit=4)


@pytest.fixture
def encoder(path):
    return smallfry.open(path).encoder()


def test_token_ids_are_those_of_tokenizers_without_the_unknown_one(encoder, kind):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(TOKENIZERS[kind]())
    unknown = 1 if kind == "wordpiece" else 0
    expected = [
        [number for number in encoding.ids if number != unknown]
        for encoding in tokenizer.encode_batch(list(TEXTS), add_special_tokens=False)
    ]
    assert encoder.tokenize(list(TEXTS)) == expected
    assert encoder.tokens == tokenizer.get_vocab_size()


def test_vectors_are_normalized_means_of_weighted_rows(encoder, path):
    file = smallfry.sfq.file.map(path)
    rows, weights = file.text.tensors.token_rows, file.text.tensors.token_weights
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        ids = encoder.tokenize([text])[0]
        weighted = file.table.decode(rows[ids]) * weights[ids, None]
        mean = weighted.mean(axis=0) if ids else np.zeros(encoder.dim, np.float32)
        np.testing.assert_allclose(vector, mean / (np.linalg.norm(mean) + 1e-32), atol=1e-6)


def test_one_text_has_one_vector(encoder):
    vector = encoder.encode("the cat")
    assert vector.shape == (encoder.dim,) and vector.dtype == np.float32
    np.testing.assert_array_equal(vector, encoder.encode(["the cat"])[0])
    assert encoder.tokenize("the cat") == encoder.tokenize(["the cat"])


def test_no_texts_have_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)
    assert encoder.tokenize([]) == []


def test_known_token_ids_have_the_same_bits(encoder):
    ids, offsets = encoder.token_ids(TEXTS)
    assert ids.dtype == offsets.dtype == np.int64 and len(offsets) == len(TEXTS) + 1
    vectors, counts = encoder.encode_counts(TEXTS)
    np.testing.assert_array_equal(encoder.pool(ids, offsets), vectors)
    np.testing.assert_array_equal(np.diff(offsets), counts)


def test_threads_do_not_change_a_bit(encoder):
    texts = [f"{text} {number}" for number in range(500) for text in TEXTS]
    one = encoder.encode(texts, threads=1)
    np.testing.assert_array_equal(encoder.encode(texts, threads=4), one)
    found = []
    others = [threading.Thread(target=lambda: found.append(encoder.encode(texts))) for _ in range(3)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    for vectors in found:
        np.testing.assert_array_equal(vectors, one)


def test_long_text_is_encoded(encoder):
    text = "the cat sat on a mat. " * 50_000
    assert np.isfinite(encoder.encode(text)).all()
    word = "x" * 1_000_000
    assert np.isfinite(encoder.encode(word)).all()


def test_lone_surrogate_is_named(encoder):
    with pytest.raises(InputError, match=r"texts\[1\]"):
        encoder.encode(["a", "b\ud800"])


@pytest.mark.parametrize("texts", [[1], ["a", None], [b"a"], 3])
def test_texts_are_strings(encoder, texts):
    with pytest.raises(TypeError):
        encoder.encode(texts)


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_token_id_out_of_range_is_rejected(encoder, number):
    with pytest.raises(IndexError, match=str(number)):
        encoder.pool([0, number], [0, 2])
    with pytest.raises(IndexError):
        encoder.pool([encoder.tokens], [0, 1])


@pytest.mark.parametrize("offsets", [[0, 3], [-1, 2], [0, 2, 1], [[0, 2]], []])
def test_offsets_beyond_the_ids_are_rejected(encoder, offsets):
    with pytest.raises(InputError):
        encoder.pool([0, 1], offsets)


def test_store_keeps_its_encoder_until_it_is_closed(path):
    store = smallfry.open(path)
    encoder = store.encoder()
    assert store.encoder() is encoder
    store.close()
    for use in (store.encoder, lambda: store.has_tokenizer, lambda: store.pooling):
        with pytest.raises(StoreClosedError):
            use()
    assert encoder.encode("the cat").any()


def test_encoder_works_after_a_fork(encoder):
    expected = encoder.encode(["the cat"]).tobytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, encoder.encode(["the cat"]).tobytes())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == expected
    os.waitpid(child, 0)


def test_limit_of_tokens_comes_before_the_unknown_one_is_left_out(tmp_path):
    path = write_text_model(tmp_path / "t.sfq", max_tokens=2)
    tokens = smallfry.open(path).encoder().tokenize(["🎉 the cat", "the cat sat", "🎉 🎉 the"])
    assert [len(ids) for ids in tokens] == [1, 2, 0]
