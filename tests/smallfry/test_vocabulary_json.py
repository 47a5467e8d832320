"""Row ids of JSON requests: find_json against orjson and find, on both kernels."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import TokenTableError
from smallfry.kernels.numpy import tokens as numpy_tokens
from smallfry.vocabulary import Vocabulary

native_tokens = pytest.importorskip("smallfry._native") if kernels.native else numpy_tokens

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    'é\\"/\n\0 a😀', max_size=40
)
tokens_lists = st.lists(any_text, max_size=60)
#: Bytes that mean something to a parser of JSON or UTF-8.
marks = st.sampled_from([*(b'{}[]",:\\/ \n\r\t0aAuUdD8cCeEfFbnrt\0\x1f\x7f'), *range(0x80, 0x100)])
VOCABULARY = Vocabulary.build(
    ["the", "of", "", "é", "\0", "a\0", "😀", '"\\/\b\f\n\r\t', "sixteen letters!", "a" * 40]
)


def outcome(vocabulary, kernel, text, most):
    index = kernel.TokenIndex(vocabulary.tokens, vocabulary.offsets, vocabulary.index, vocabulary.seed)
    try:
        rows = index.find_json(text, most)
    except TokenTableError as error:
        return str(error)
    if rows is None:
        return None
    assert rows.dtype == np.int64 and rows.ndim == 1
    return rows.tolist()


def find(text, most=1000, vocabulary=VOCABULARY):
    """Return the rows that both kernels find, None or the message of the error."""
    native, numpy = (outcome(vocabulary, kernel, text, most) for kernel in (native_tokens, numpy_tokens))
    assert native == numpy
    return native


def find_by_orjson(text, vocabulary=VOCABULARY):
    try:
        body = orjson.loads(text + b"}")
    except orjson.JSONDecodeError:
        return None
    tokens = body.get("tokens") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    return vocabulary.find(tokens).tolist()


def written(tokens):
    """Return the beginnings of bodies as JSON libraries write them."""
    body = {"tokens": tokens}
    bodies = [
        orjson.dumps(body),
        orjson.dumps(body, option=orjson.OPT_INDENT_2),
        json.dumps(body).encode(),
        json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        json.dumps(body, indent="\t").replace("\n", "\r\n").encode(),
    ]
    return [body[: body.rindex(b"]") + 1] for body in bodies]


@given(tokens_lists, tokens_lists)
def test_bodies_of_json_libraries_are_read(known, others):
    vocabulary = Vocabulary.build(dict.fromkeys(known))
    rows = vocabulary.find([*known, *others]).tolist()
    for text in written([*known, *others]):
        assert find(text, vocabulary=vocabulary) == rows
        assert vocabulary.find_json(text, 1000).tolist() == rows


@given(st.data(), tokens_lists)
def test_changed_bodies_give_the_rows_of_orjson_or_none(data, tokens):
    text = bytearray(data.draw(st.sampled_from(written(tokens))))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(begin + data.draw(st.integers(0, 3)), len(text))
        text[begin:end] = data.draw(st.lists(marks, max_size=4).map(bytes))
    rows = find(bytes(text))
    assert rows is None or rows == find_by_orjson(bytes(text))


@given(st.lists(marks, max_size=12).map(bytes))
@example(b"\xed\xa0\x80")
@example(b"\xf4\x90\x80\x80")
@example(b"\xc0\x80")
@example(b"\\ud83d\\ude00")
@example(b"\\uD83D\\uDE00\\u00E9")
def test_strings_are_those_of_orjson(content):
    text = b'{"tokens":["the","' + content + b'"]'
    assert find(text) == find_by_orjson(text)
    padded = b'{"tokens":["the","' + 15 * b"a" + content + 15 * b"a" + b'"]'
    assert find(padded) == find_by_orjson(padded)


@given(st.lists(st.sampled_from("0123456789abcdefABCDEFgG:/@`xu"), min_size=4, max_size=4).map("".join))
def test_escaped_characters_are_those_of_orjson(digits):
    for content in (f"\\u{digits}", f"\\ud83d\\u{digits}", f"\\u{digits}\\ude00"):
        text = f'{{"tokens":["{content}"]'.encode()
        assert find(text) == find_by_orjson(text)


def test_every_single_byte_and_escape_is_that_of_orjson():
    for byte in range(256):
        for content in (bytes([byte]), b"\\" + bytes([byte])):
            text = b'{"tokens":["' + content + b'"]'
            assert find(text) == find_by_orjson(text)


def test_white_space_is_allowed_between_all_tokens_of_json():
    assert find(b' \n{\t"tokens"\r: [ "of" ,\n\n"the"\t, "x"\r\n]') == [1, 0, -1]
    assert find(b'{"tokens":[ \t]') == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"tokens":',
        b'{"tokens":[',
        b'{"tokens":["the',
        b'{"tokens":["the\\',
        b'{"tokens":["the\\u00',
        b'{"tokens":["the"',
        b'{"tokens":["the",',
        b'{"tokens":["the",]',
        b'{"tokens":[,"the"]',
        b'{"tokens":["the" "of"]',
        b'{"tokens":["the"]]',
        b'{"tokens":["the"] ',
        b'{"tokens":["the"]}',
        b'{"tokens":["the",["of"]]',
        b'{"tokens":["the",1]',
        b'{"tokens":["the",null]',
        b'{"tokens":"the"]',
        b'{"tokens":["the"],"tokens":["of"]',
        b'{"model":"m","tokens":["the"]',
        b'{"ids":[1]',
        b'{"\\u0074okens":["the"]',
        b'{"tokens ":["the"]',
        b'\xef\xbb\xbf{"tokens":["the"]',
        b'{"tokens":["the"]\0',
        b'{\0"tokens":["the"]',
        b'["the"]',
        b'{"tokens":[' + b"[" * 100_000 + b"]",
    ],
)
def test_other_texts_are_left_to_the_general_parser(text):
    assert find(text) is None


def test_number_of_tokens_is_limited():
    text = b'{"tokens":["the","of","the"]'
    assert find(text, most=3) == [0, 1, 0]
    assert find(text, most=2) is None
    assert find(text, most=0) is None
    assert find(b'{"tokens":[]', most=0) == []
    assert find(text, most=2**63) == [0, 1, 0]


def test_shortest_strings_fill_the_text():
    for count in range(70):
        assert find(b'{"tokens":[' + b",".join([b'""'] * count) + b"]") == [2] * count


@pytest.mark.parametrize("length", [*range(70), 1000])
def test_last_token_of_any_length_is_found(length):
    token = "t" * length
    vocabulary = Vocabulary.build(["first", token])
    for text in (
        f'{{"tokens":["{token}"]',
        f'{{"tokens":["{token}\\u0074"]',
        f'{{"tokens":["\\u0074{token}"]',
    ):
        assert find(text.encode(), vocabulary=vocabulary) == [1 if "u0074" not in text else -1]


def test_large_request_is_read():
    tokens = [f"token-{i}" for i in range(100_000)]
    vocabulary = Vocabulary.build(tokens)
    for text in written(tokens[::-1]):
        np.testing.assert_array_equal(vocabulary.find_json(text, 100_000), np.arange(100_000)[::-1])
        assert vocabulary.find_json(text, 99_999) is None


@given(st.data())
def test_damaged_arrays_raise_or_return_the_same_rows(data):
    tokens = [f"token-{i}" for i in range(20)]
    whole = Vocabulary.build(tokens)
    offsets, index = whole.offsets.copy(), whole.index.copy()
    for array in (offsets[1:-1], index):
        array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(0, 2**32 - 1))
    damaged = Vocabulary(whole.tokens, offsets, index, whole.seed)
    for token in tokens:
        try:
            expected = damaged.find([token]).tolist()
        except TokenTableError as error:
            expected = str(error)
        assert find(orjson.dumps({"tokens": [token]})[:-1], vocabulary=damaged) == expected


def test_slot_that_names_no_row_raises():
    whole = Vocabulary.build(["the", "of"])
    index = np.where(whole.index, whole.index | 3, 0).astype(np.uint32)
    damaged = Vocabulary(whole.tokens, whole.offsets, index, whole.seed)
    assert (
        find(b'{"tokens":["the"]', vocabulary=damaged) == "the token index names row 2, but there are 2 rows"
    )


def test_text_that_is_not_bytes_is_rejected():
    for kernel in (native_tokens, numpy_tokens):
        index = kernel.TokenIndex(VOCABULARY.tokens, VOCABULARY.offsets, VOCABULARY.index, VOCABULARY.seed)
        with pytest.raises(TypeError):
            index.find_json('{"tokens":["the"]', 10)
