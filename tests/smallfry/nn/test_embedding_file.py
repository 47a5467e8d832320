import numpy as np
import pytest
import torch

import smallfry
from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("a 0.5 -0.5\nb 0.25 0.5\nc -0.5 0.25\n")
    return path


def test_rows_are_lines(glove):
    module = QuantEmbedding(3, 2, nbit=32, embedding_file=glove)
    assert module.weight.tolist() == [[0.5, -0.5], [0.25, 0.5], [-0.5, 0.25]]


@pytest.mark.parametrize("nbit", [2, 8, 32])
@pytest.mark.parametrize("kind", [QuantEmbedding, QuantEmbeddingBag])
def test_rows_past_the_end_of_the_file_are_zeros_with_a_warning(glove, kind, nbit):
    with pytest.warns(UserWarning, match="has 3 vectors, fewer than num_embeddings, 5") as caught:
        module = kind(5, 2, nbit=nbit, embedding_file=glove)
    assert caught[0].filename == __file__
    assert module.weight.tolist() == [[0.5, -0.5], [0.25, 0.5], [-0.5, 0.25], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("rows", "dim", "words"),
    [
        (2, 2, "has more than 2 vectors, which is num_embeddings"),
        (3, 5, "has vectors of 2 values, but embedding_dim is 5"),
    ],
)
def test_file_of_another_size_is_rejected(glove, rows, dim, words):
    with pytest.raises(InputError, match=words):
        QuantEmbedding(rows, dim, nbit=2, embedding_file=glove)


@pytest.mark.parametrize("kind", [QuantEmbedding, QuantEmbeddingBag])
@pytest.mark.parametrize(
    "text",
    [
        b"a 1 2\nb 3 4\na 5 6\n",
        b"3 2\na 1 2\n 3 4\nb 5 6\n",
        b"a 1 2\n\xe4 3 4\n\xf6 5 6\n",
        b"a b 1 2\na c 3 4\nb 5 6",
    ],
    ids=["duplicate", "header and blank word", "not UTF-8", "word with a space"],
)
def test_row_is_its_line_whatever_the_word(tmp_path, kind, text):
    (tmp_path / "vectors").write_bytes(text)
    module = kind(3, 2, nbit=32, embedding_file=tmp_path / "vectors")
    assert module.weight.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_matrix_is_read_without_the_words_next_to_it(tmp_path):
    np.save(tmp_path / "m.npy", [[1.0, 2.0], [3.0, 4.0]])
    (tmp_path / "m.txt").write_text("a 1 2\n")
    module = QuantEmbedding(2, 2, nbit=32, embedding_file=tmp_path / "m.npy")
    assert module.weight.tolist() == [[1, 2], [3, 4]]


def test_sfq_file_is_for_from_sfq(tmp_path):
    smallfry.save(tmp_path / "t.sfq", np.ones((3, 2)))
    with pytest.raises(InputError, match=r"t\.sfq is a \.sfq file.*QuantEmbedding\.from_sfq"):
        QuantEmbedding(3, 2, embedding_file=tmp_path / "t.sfq")


def test_dtype_of_the_output_can_be_chosen(glove):
    module = QuantEmbedding(3, 2, nbit=2, embedding_file=glove, dtype=torch.bfloat16)
    assert module(torch.tensor([0])).dtype == torch.bfloat16


def test_real_glove_file_gives_its_vectors(real_data):
    path = real_data / "embeddings" / "glove.6B.50d.head-1000.txt"
    lines = path.read_text().splitlines()
    expected = np.array([line.split(" ")[1:] for line in lines], np.float32)
    exact = QuantEmbedding(1000, 50, nbit=32, embedding_file=path)
    assert np.array_equal(exact.weight.numpy(), expected)
    coarse = QuantEmbedding(1000, 50, nbit=8, embedding_file=path)
    assert coarse.frobenius_error < 0.02
    assert np.abs(coarse.weight.numpy() - expected).mean() < 0.01
