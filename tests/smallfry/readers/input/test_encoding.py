"""Text that is not UTF-8."""

import codecs
import io

import numpy as np
import pytest

from smallfry.errors import BadLineError, InputError
from smallfry.readers import open_vectors
from tests.helpers.readers import read

WORDS = {
    "cp1251": ["слово", "ёж", "мир"],
    "koi8-r": ["слово", "мир"],
    "gb18030": ["词", "向量", "㐀", "𠀀"],
    "big5": ["詞", "向量"],
    "shift_jis": ["表", "ソ", "単語"],
    "euc_kr": ["단어", "벡터"],
    "latin-1": ["café", "naïve", "\xa0", "\x85"],
    "utf-16": ["word", "слово", "词", "😀"],
    "utf-16-le": ["word", "слово"],
    "utf-32": ["word", "词"],
    "utf-8": ["word", "词"],
    "utf-8-sig": ["word", "词"],
    "iso2022_jp": ["単語", "表"],
}


def text(words):
    return "".join(f"{word} {i}.5 -1.25\n" for i, word in enumerate(words))


@pytest.mark.parametrize(("encoding", "words"), WORDS.items(), ids=WORDS)
def test_encoding_is_converted(encoding, words):
    tokens, matrix, report = read(text(words).encode(encoding), encoding=encoding)
    assert tokens == words
    assert matrix.tolist() == [[i + 0.5, -1.25] for i in range(len(words))]
    assert report.encoding == (None if encoding == "utf-8" else encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_byte_order_mark_declares_the_encoding(encoding, header):
    tokens, _, report = read((header + text(WORDS["utf-16"])).encode(encoding))
    assert tokens == WORDS["utf-16"]
    assert report.notes() == [f"text in {encoding}"]


def test_big_endian_text_is_read():
    data = codecs.BOM_UTF16_BE + text(["слово", "мир"]).encode("utf-16-be")
    assert read(data)[0] == ["слово", "мир"]


def test_large_text_is_converted_in_blocks():
    words = [f"слово{i}" for i in range(100_000)]
    assert read(text(words).encode("cp1251"), encoding="cp1251")[0] == words


def test_digest_covers_the_stored_bytes():
    data = text(["слово", "мир"]).encode("cp1251")
    digests = set()
    for options in ({"encoding": "cp1251"}, {"encoding": "utf-8"}):
        source = open_vectors(io.BytesIO(data), **options)
        list(source.chunks())
        digests.add(source.sha256)
    assert len(digests) == 1


def test_bytes_that_are_not_in_the_encoding_are_rejected_or_replaced():
    data = text(["слово", "мир"]).encode() + b"\xff 1 2\n"
    with pytest.raises(InputError, match="is not valid ascii"):
        read(data, encoding="ascii")
    assert len(read(text(["слово", "мир"]).encode(), encoding="ascii", skip_bad_lines=True)[0]) == 2


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", ""])
def test_unknown_encoding_is_rejected(encoding):
    with pytest.raises(InputError, match="expected a text encoding that Python knows"):
        read(b"a 1 2\n", encoding=encoding)


def test_tokens_of_a_binary_file_are_converted():
    records = b"".join(
        w.encode("cp1251") + b" " + np.float32([i, 1]).tobytes() for i, w in enumerate(["да", "нет"])
    )
    tokens, matrix, _ = read(b"2 2\n" + records, encoding="cp1251")
    assert (tokens, matrix.tolist()) == (["да", "нет"], [[0, 1], [1, 1]])
    with pytest.raises(BadLineError, match="record 1: 'ascii' codec can't decode"):
        read(b"2 2\n" + records, encoding="ascii")
