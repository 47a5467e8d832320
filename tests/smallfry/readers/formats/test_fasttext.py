import gzip
import hashlib
import io
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.readers import open_vectors
from smallfry.readers.formats import fasttext
from tests.helpers.fasttext import SUPERVISED, fasttext_model, word_vector
from tests.helpers.readers import read

WORDS = ["</s>", "the", "of", "a", "être", "日本語", "🙂", "a-very-long-word", ""]
MATRIX = np.random.default_rng(0).normal(size=(len(WORDS) + 20, 3)).astype(np.float32)


def expected(ngrams, words=WORDS):
    return [word_vector(word, number, words, MATRIX, ngrams) for number, word in enumerate(words)]


@pytest.mark.parametrize("ngrams", [(3, 6), (1, 2), (2, 2), (0, 3), (5, 3), (0, 0)])
@pytest.mark.parametrize("gathered", [1, 100, 1 << 20])
def test_vector_is_the_mean_of_the_rows_of_word_and_ngrams(monkeypatch, ngrams, gathered):
    monkeypatch.setattr(fasttext, "_GATHERED", gathered)
    tokens, matrix, report = read(fasttext_model(WORDS, MATRIX, ngrams=ngrams))
    assert tokens == WORDS
    np.testing.assert_allclose(matrix, expected(ngrams), rtol=0, atol=1e-6)
    assert (report.format, report.declared_rows) == ("fasttext", len(WORDS))


def test_blocks_give_the_same_vectors(monkeypatch):
    monkeypatch.setattr(fasttext, "BLOCK_BYTES", 30)
    monkeypatch.setattr(fasttext, "_TOKENS_PACKED", 2)
    tokens, matrix, _ = read(fasttext_model(WORDS, MATRIX))
    assert tokens == WORDS
    np.testing.assert_allclose(matrix, expected((3, 6)), rtol=0, atol=1e-6)


def test_known_hash():
    """The buckets that `get_subwords("être")` of fastText 0.9.2 returns, for 20 of them."""
    words = fasttext.pack(["être".encode()])
    rows, counts = fasttext.subwords(words, fasttext.Ngrams(3, 6, 20))
    assert rows.tolist() == [-1, 10, 4, 19, 7, 18, 13, 13, 6, 8, 18]
    assert counts.tolist() == [11]


def test_labels_are_left_out():
    data = fasttext_model(WORDS, MATRIX, labels=["__label__a", "__label__b"], model=SUPERVISED)
    tokens, matrix, _ = read(data)
    assert tokens == WORDS
    np.testing.assert_allclose(matrix, expected((3, 6)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", [None, 11])
def test_older_versions(version):
    words = WORDS[1:]
    _, matrix, _ = read(fasttext_model(words, MATRIX, version=version))
    np.testing.assert_allclose(matrix, expected((3, 6), words), rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", [None, 11])
def test_supervised_models_of_older_versions_use_no_ngrams(version):
    _, matrix, _ = read(fasttext_model(WORDS, MATRIX, version=version, model=SUPERVISED))
    np.testing.assert_array_equal(matrix, MATRIX[: len(WORDS)])


def test_model_from_a_file_an_archive_and_compressed(tmp_path):
    data = fasttext_model(WORDS, MATRIX)
    (tmp_path / "x.bin").write_bytes(data)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.bin", data)
    for source in (tmp_path / "x.bin", archive.getvalue(), gzip.compress(data)):
        np.testing.assert_allclose(read(source)[1], expected((3, 6)), rtol=0, atol=1e-6)


def test_digest_and_progress_are_of_the_file(tmp_path):
    data = fasttext_model(WORDS, MATRIX)
    (tmp_path / "x.bin").write_bytes(data)
    calls = []
    source = open_vectors(tmp_path / "x.bin", progress=lambda *call: calls.append(call))
    list(source.chunks())
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert calls[-1] == ("read", len(data), len(data))


def test_encoding():
    data = fasttext_model(["the"], MATRIX[:1], ngrams=(0, 0)).replace(b"the\0", b"\xf2\xe5\xf1\xf2\0")
    assert read(data, encoding="cp1251")[0] == ["тест"]
    with pytest.raises(InputError, match=r"record 1: .*Please pass its encoding"):
        read(data, encoding="ascii")


@pytest.mark.parametrize("options", [{"quantized": True}, {"pruned": 0}, {"pruned": 5}])
def test_quantized_model_is_rejected(options):
    with pytest.raises(
        InputError, match=r"a quantized fastText model \(\.ftz\).* Please use the \.bin model"
    ):
        read(fasttext_model(WORDS, MATRIX, **options))


@pytest.mark.parametrize("version", [10, 13])
def test_other_version_is_rejected(version):
    with pytest.raises(InputError, match=f"a fastText model of version {version}, expected 11 or 12"):
        read(fasttext_model(WORDS, MATRIX, version=version))


def test_other_file_is_rejected():
    with pytest.raises(InputError, match="is not a fastText model"):
        read(b"the 1 2\n", format="fasttext")


def with_number(data, number, value):
    """Replace a 32-bit number after magic number and version: arguments, then a double, then the counts."""
    at = 8 + 4 * number + (8 if number >= 12 else 0)
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


@pytest.mark.parametrize(
    ("number", "value", "message"),
    [
        (0, 0, "vectors of 0 values"),
        (0, 4, r"its matrix is \[29, 3\], expected \[29, 4\]"),
        (8, -1, "declares -1 buckets"),
        (8, 0, "declares 0 buckets"),
        (8, 2**31 - 1, r"its matrix is \[29, 3\], expected \[2,147,483,656, 3\]"),
        (10, 2**31 - 1, "n-grams of 2,147,483,647 characters, the limit is 64"),
        (12, 2**31 - 1, "declares 2,147,483,647 entries"),
        (13, 8, "declares 9 entries, 8 words"),
    ],
)
def test_impossible_header_is_rejected(number, value, message):
    with pytest.raises(InputError, match=message):
        read(with_number(fasttext_model(WORDS, MATRIX), number, value))


def test_missing_rows_take_no_memory():
    rows = 2**31 - 1 + len(WORDS)
    data = fasttext_model(WORDS, MATRIX, shape=(rows, 3))
    with pytest.raises(InputError, match="ends inside its matrix of 25,769,803,872 bytes"):
        read(with_number(data, 8, 2**31 - 1))


def test_sum_beyond_float32_is_rejected():
    matrix = np.full((6, 2), 3e38, np.float32)
    with pytest.raises(InputError, match="record 1: value 1 is inf"):
        read(fasttext_model(["the"], matrix))


def test_label_among_the_words_is_rejected():
    data = with_number(with_number(fasttext_model(WORDS, MATRIX, labels=["x"]), 13, 10), 14, 0)
    with pytest.raises(InputError, match="entry 10 of its dictionary is no word"):
        read(data)


def test_truncated_model_is_rejected():
    data = fasttext_model(WORDS[:3], MATRIX[:4])
    for size in range(4, len(data)):
        with pytest.raises(InputError, match="is a damaged fastText model"):
            read(data[:size])


def test_damaged_byte_raises_only_input_error():
    data = fasttext_model(WORDS, MATRIX)
    for position in range(0, len(data), 3):
        with suppress(InputError):
            read(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
