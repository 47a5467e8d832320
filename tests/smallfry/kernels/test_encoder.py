"""The fused path from texts to vectors: tokens, rows, weights, mean and norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import TokenizerError
from tests.helpers.tokenizer_tables import wordpiece_tables

pytestmark = pytest.mark.skipif(not kernels.native, reason="needs the native module")

WORDS = ["[UNK]", "a", "b", "c", "d"]
TABLE = np.random.default_rng(0).standard_normal((5, 19), dtype=np.float32)
TEXTS = ["a b c", "", "d", "x a x", "b " * 50, "a a a b"] * 20


def make(**options: Any) -> Any:
    tokenizer = kernels.Tokenizer(*wordpiece_tables(WORDS))
    decoder = kernels.Decoder(TABLE, 19, 32, None, None, None, None, np.empty(0, np.uint32), None)
    defaults = {
        "token_rows": None,
        "token_weights": None,
        "tokens": 5,
        "max_characters": None,
        "max_tokens": None,
        "skip": None,
        "normalize": False,
    }
    return kernels.Encoder(tokenizer, decoder, **defaults | options)


def encode(encoder: Any, texts: list[str], threads: int = 1) -> NDArray[np.float32]:
    vectors = np.full((len(texts), 19), np.nan, np.float32)
    encoder.encode(texts, vectors, threads)
    return vectors


def mean(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    total = np.zeros(rows.shape[1], np.float32)
    for row in rows:
        total += row
    return total / np.float32(max(1, len(rows)))


def test_a_vector_is_the_mean_of_the_rows_of_its_tokens() -> None:
    vectors = encode(make(), ["a b c", "", "b x b"])
    assert vectors[0].tobytes() == mean(TABLE[[1, 2, 3]]).tobytes()
    assert not vectors[1].any()
    assert vectors[2].tobytes() == mean(TABLE[[2, 0, 2]]).tobytes()


def test_tokens_have_rows_and_weights() -> None:
    rows = np.array([4, 3, 2, 1, 0], np.uint32)
    weights = np.array([1, 0.5, 3, 0.1, 7], np.float32)
    vector = encode(make(token_rows=rows, token_weights=weights), ["a b c"])[0]
    expected = mean(TABLE[[3, 2, 1]] * weights[[1, 2, 3], None])
    assert vector.tobytes() == expected.tobytes()


def test_a_skipped_token_is_not_counted() -> None:
    encoder, vectors = make(skip=0, max_tokens=3), np.empty((1, 19), np.float32)
    assert encoder.encode(["x a x b b"], vectors, 1).tolist() == [1]
    assert vectors[0].tobytes() == TABLE[1].tobytes()


def test_vectors_are_divided_by_their_norm() -> None:
    vectors = encode(make(normalize=True), ["a b c", "", "d"])
    norms = np.linalg.norm(vectors, axis=1)
    assert norms == pytest.approx([1, 0, 1], abs=1e-6)
    assert vectors[0] == pytest.approx(mean(TABLE[1:4]) / np.linalg.norm(mean(TABLE[1:4])), abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"normalize": True, "skip": 0, "max_tokens": 40}])
def test_texts_their_ids_and_all_numbers_of_threads_give_the_same_bits(options: dict[str, Any]) -> None:
    encoder = make(**options, token_weights=np.linspace(0.1, 1, 5, dtype=np.float32))
    texts = TEXTS * 40
    limits = options.get("max_tokens"), options.get("skip")
    ids, offsets = kernels.Tokenizer(*wordpiece_tables(WORDS)).tokenize(texts, None, *limits)
    expected = encode(encoder, texts)
    assert encode(encoder, texts, threads=3).tobytes() == expected.tobytes()
    for threads in (1, 3):
        pooled = np.empty_like(expected)
        encoder.pool(ids, offsets, pooled, threads)
        assert pooled.tobytes() == expected.tobytes()


def test_a_text_of_many_tokens_is_decoded_in_blocks() -> None:
    encoder, text = make(), "a b " * 10_000
    vectors = encode(encoder, ["c", text, "d", text])
    assert vectors[1].tobytes() == vectors[3].tobytes() == mean(TABLE[[1, 2] * 10_000]).tobytes()
    assert vectors[2].tobytes() == TABLE[4].tobytes()


def test_ids_and_offsets_are_checked() -> None:
    encoder, vectors = make(), np.empty((1, 19), np.float32)
    for wrong in (5, -1):
        with pytest.raises(IndexError, match=f"token id {wrong} is out of range for 5 tokens"):
            encoder.pool(np.array([0, wrong]), np.array([0, 2]), vectors, 1)
    for offsets in ([0, 3], [1, 0], [0, -1], []):
        with pytest.raises(ValueError, match=r"offsets|out"):
            encoder.pool(np.array([0, 1]), np.array(offsets, np.int64), vectors, 1)


def test_tables_that_contradict_each_other() -> None:
    with pytest.raises(TokenizerError, match="4 rows of 5 tokens"):
        make(token_rows=np.zeros(4, np.uint32))
    with pytest.raises(TokenizerError, match="6 weights of 5 tokens"):
        make(token_weights=np.zeros(6, np.float32))
    with pytest.raises(TokenizerError, match="token 2 has row 7, but there are 5 rows"):
        encode(make(token_rows=np.array([0, 1, 7, 0, 0], np.uint32)), TEXTS, threads=2)
    with pytest.raises(TokenizerError, match="token 3, but there are 3 tokens"):
        encode(make(tokens=3), ["a b c"])
