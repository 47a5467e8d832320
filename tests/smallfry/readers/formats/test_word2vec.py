import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.readers import open_vectors
from smallfry.readers.formats import word2vec as word2vec_reader
from tests.helpers.readers import read

tokens_of_records = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \n"), min_size=1, max_size=8
)


def binary(tokens, matrix, separator=b"", declared=None):
    rows, dim = matrix.shape
    encoded = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    rows_bytes = [row.astype("<f4").tobytes() for row in matrix]
    records = [token + b" " + row + separator for token, row in zip(encoded, rows_bytes, strict=True)]
    return b"%d %d\n" % (rows if declared is None else declared, dim) + b"".join(records)


def matrix_of(rows, dim=5):
    return np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32)


@pytest.fixture
def small_blocks(monkeypatch):
    """Read 64 bytes at a time, so that records cross blocks."""
    monkeypatch.setattr(word2vec_reader, "BLOCK_BYTES", 64)


@given(st.lists(tokens_of_records, min_size=1, max_size=10, unique=True), st.sampled_from([b"", b"\n"]))
def test_word2vec_binary_round_trip(tokens, separator):
    matrix = matrix_of(len(tokens))
    read_tokens, read_matrix, report = read(binary(tokens, matrix, separator))
    assert read_tokens == tokens
    np.testing.assert_array_equal(read_matrix, matrix)
    assert report.declared_rows == len(tokens)


@pytest.mark.parametrize("dim", [1, 2, 100])
@pytest.mark.parametrize("value", [0.0, 0.3, -1e-30, 1e30])
def test_binary_is_distinguished_from_text(dim, value):
    source = binary(["a", "b"], np.full((2, dim), value, np.float32))
    tokens, matrix, _ = read(source)
    assert tokens == ["a", "b"] and matrix.shape == (2, dim)


def test_records_cross_blocks(small_blocks):
    tokens = [f"token-{i}" for i in range(50)]
    read_tokens, matrix, _ = read(binary(tokens, matrix_of(50), b"\n"))
    assert read_tokens == tokens
    np.testing.assert_array_equal(matrix, matrix_of(50))


def test_vector_may_contain_any_byte(small_blocks):
    matrix = np.frombuffer(b"    \n\n\n\n 0 1\n \n \r\n\r\n", "<f4").reshape(1, 5)
    np.testing.assert_array_equal(read(b"1 5\na " + matrix.tobytes(), format="word2vec-binary")[1], matrix)


def test_duplicates_and_invalid_utf8_are_counted(small_blocks):
    tokens, matrix, report = read(binary([b"a", b"\xff", b"a", b"b"], matrix_of(4)), encoding="utf-8")
    assert tokens == ["a", "\ufffd", "b"]
    np.testing.assert_array_equal(matrix, matrix_of(4)[[0, 1, 3]])
    assert (report.duplicates, report.invalid_utf8) == (1, 1)


def test_strict_rejects_invalid_utf8_with_record_number():
    with pytest.raises(BadLineError, match=r"record 2: token b'\\xff' is not valid UTF-8"):
        read(binary([b"a", b"\xff"], matrix_of(2)), strict=True)


@pytest.mark.parametrize("cut", [1, 10, 19])
def test_truncated_record_is_rejected(small_blocks, cut):
    whole = binary(["a", "b", "c"], matrix_of(3))
    with pytest.raises(BadLineError, match="record 3: the file ends inside it"):
        read(whole[:-cut])
    tokens, _, report = read(whole[:-cut], skip_bad_lines=True)
    assert tokens == ["a", "b"]
    assert report.bad_lines == 1


def test_fewer_records_than_declared_are_rejected(small_blocks):
    data = binary(["a", "b"], matrix_of(2), declared=4)
    with pytest.raises(BadLineError, match="record 3: missing, though the header declares 4"):
        read(data)
    assert read(data, skip_bad_lines=True)[2].notes() == ["rows declared: 4, found: 2"]


def test_more_records_than_declared_are_rejected(small_blocks):
    data = binary(["a", "b", "c"], matrix_of(3), declared=2)
    with pytest.raises(BadLineError, match="record 3: another record, though the header declares 2"):
        read(data)
    assert read(data, skip_bad_lines=True)[0] == ["a", "b", "c"]


def test_non_finite_value_is_rejected_with_record_and_column(small_blocks):
    matrix = matrix_of(3)
    matrix[1, 4] = np.inf
    with pytest.raises(NonFiniteError, match="record 2: value 5 is inf"):
        read(binary(["a", "b", "c"], matrix))
    assert read(binary(["a", "b", "c"], matrix), skip_bad_lines=True)[0] == ["a", "c"]


def test_record_without_a_space_is_rejected(small_blocks, monkeypatch):
    monkeypatch.setattr(word2vec_reader, "MAX_TOKEN", 100)
    data = b"2 2\na " + struct.pack("<2f", 0.3, 0.4) + b"x" * 1000
    with pytest.raises(BadLineError, match="record 2: no space in 100 bytes"):
        read(data)


def test_missing_header_is_rejected():
    with pytest.raises(InputError, match="does not begin with a line 'rows dim'"):
        open_vectors(__file__, format="word2vec-binary")


def test_real_emoji2vec(real_data):
    tokens, matrix, report = read(real_data / "embeddings" / "emoji2vec.bin")
    assert matrix.shape == (1661, 300) and tokens[-1] == "🙏🏿"
    assert np.linalg.norm(matrix, axis=1).min() > 0
    assert report.notes() == []


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_newline_token_is_read_with_and_without_newlines_after_vectors(end):
    words = [b"</s>", b"a", b"\n", b"", b"b"]
    records = b"".join(word + b" " + np.float32([i, 1]).tobytes() + end for i, word in enumerate(words))
    tokens, matrix, _ = read(b"5 2\n" + records)
    assert tokens == ["</s>", "a", "\n", "", "b"]
    assert matrix[:, 0].tolist() == [0, 1, 2, 3, 4]
