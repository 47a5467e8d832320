"""The tensors and the metadata of text models."""

import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import smallfry
from smallfry import kernels
from smallfry.errors import (
    CodeError,
    DtypeError,
    MetadataError,
    MissingTensorError,
    NoTokenizerError,
    SfqError,
    ShapeError,
    TokenizerError,
)
from smallfry.sfq import file as sfq
from smallfry.sfq.verify import verify
from smallfry.text.model import CODE_POINT_BLOCKS, Pooling, TextModel, TextTensors
from smallfry.text.settings import serialize
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import random_table

TOKENS = ["[UNK]", "a", "b", "c"]
SETTINGS = {
    "model": {"type": "wordpiece", "unknown": 0, "prefix": "##", "max_characters": 100},
    "normalizer": [],
    "pre_tokenizer": [{"type": "whitespace_split"}],
    "added": [],
}
UNIGRAM = SETTINGS | {"model": {"type": "unigram", "unknown": 0, "byte_fallback": False}}
ROWS = np.array([0, 1, 3, 2], np.uint32)
SCORES = np.zeros(4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.sfq"


def text_model(settings=SETTINGS, tokens=TOKENS, pooling=None, **tensors):
    packed = Vocabulary.build(tokens)
    trie = kernels.build_trie(
        packed.tokens, packed.offsets.astype(np.int64), np.arange(len(tokens), dtype=np.uint32)
    )
    parts = TextTensors(
        serialize(settings),
        trie,
        np.zeros(CODE_POINT_BLOCKS, np.uint16),
        np.zeros(256, np.uint32),
        np.zeros(0, np.uint8),
    )
    return TextModel(parts._replace(**tensors), pooling or Pooling(len(tokens)))


def write(path, text, vocabulary=None, rows=4):
    sfq.write(path, random_table(rows, 7, 2, "uniform"), vocabulary, text=text)


def test_what_is_written_is_mapped_bit_for_bit(path):
    pooling = Pooling(4, 512, 2048, 0, True)
    text = text_model(
        UNIGRAM, pooling=pooling, token_scores=SCORES, token_rows=ROWS, token_weights=SCORES.astype("f4")
    )
    write(path, text)
    mapped = sfq.map(path).text
    assert mapped.pooling == pooling
    assert mapped.present().keys() == text.present().keys()
    for name, array in text.present().items():
        np.testing.assert_array_equal(mapped.present()[name], array, strict=True)
    assert verify(path).tensors == ("codes", "codebook", *text.present())


def test_safetensors_own_reader_opens_a_text_model(path):
    numpy = pytest.importorskip("safetensors.numpy")
    text = text_model()
    write(path, text)
    assert numpy.load_file(path).keys() == {"codes", "codebook", *text.present()}


def test_store_tells_whether_it_has_a_tokenizer(path):
    write(path, None)
    with smallfry.open(path) as store:
        assert not store.has_tokenizer and not store.describe()["has_tokenizer"]
        assert store.nbytes["tokenizer"] == 0
        with pytest.raises(NoTokenizerError, match=r"t\.sfq has no tokenizer"):
            store.encoder()
    text = text_model()
    write(path, text)
    with smallfry.open(path) as store:
        assert store.has_tokenizer and store.describe()["has_tokenizer"]
        assert store.nbytes["tokenizer"] == text.nbytes


@given(
    st.builds(
        Pooling,
        st.integers(1, 2**31),
        *[st.none() | st.integers(1, 2**31)] * 2,
        st.none() | st.integers(0, 2**31),
        st.booleans(),
    )
)
def test_pooling_is_read_back(pooling):
    assert Pooling.parse(pooling.serialize()) == pooling


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tokens": 0}, "tokens of 1 to"),
        ({"tokens": None}, "tokens of 1 to"),
        ({"max_tokens": True}, "max_tokens of 1 to"),
        ({"max_characters": 2**31 + 1}, "max_characters of 1 to"),
        ({"skip": -1}, "skip of 0 to"),
        ({"normalize": 1}, "normalize to be true or false"),
        ({"mode": "sum"}, "an object with the keys tokens"),
    ],
)
def test_malformed_pooling_is_rejected(change, expected):
    with pytest.raises(MetadataError, match=expected):
        Pooling.parse(json.dumps(dataclasses.asdict(Pooling(4)) | change))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", "NaN", '{"tokens": 4}'])
def test_pooling_that_is_no_object_is_rejected(text):
    with pytest.raises(MetadataError, match="an object with the keys"):
        Pooling.parse(text)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"token_trie": None}, MissingTensorError, "has no token_trie"),
        ({"charsmap": np.zeros(4, np.uint32)}, MissingTensorError, "has no charsmap_text"),
        ({"merge_index": np.zeros(64, np.uint32)}, MissingTensorError, "has no token_merges"),
        ({"token_rows": ROWS[:3]}, ShapeError, r"'token_rows' has shape \[3\], expected \[4\]"),
        ({"token_weights": SCORES}, DtypeError, "'token_weights' has dtype 'F64', expected F32"),
        ({"character_blocks": np.zeros(9, np.uint16)}, ShapeError, r"shape \[9\], expected \[4352\]"),
        ({"token_merges": np.zeros((9, 2), np.uint32)}, MissingTensorError, "has no merge_index"),
    ],
)
def test_tensors_that_contradict_each_other_are_not_written(path, changes, error, message):
    with pytest.raises(error, match=message):
        write(path, text_model(**changes))
    assert not path.exists()


def test_more_tokens_than_rows_need_their_rows(path):
    with pytest.raises(TokenizerError, match="4 tokens for 3 rows, and no token_rows"):
        write(path, text_model(), rows=3)


def test_tensors_of_a_tokenizer_need_its_pooling(path):
    write(path, text_model())
    raw = path.read_bytes().replace(b'"pooling"', b'"lopoing"', 1)
    path.write_bytes(raw)
    with pytest.raises(MetadataError, match="no 'pooling', which tokenizer needs"):
        smallfry.open(path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (lambda: text_model(token_rows=ROWS + 1), TokenizerError, "gives token 2 the row 4"),
        (lambda: text_model(token_weights=np.full(4, np.nan, "f4")), CodeError, "token_weights has NaN"),
        (lambda: text_model(tokenizer=np.frombuffer(b"{}", np.uint8)), TokenizerError, "with the keys"),
        (lambda: text_model(token_scores=SCORES), TokenizerError, "does not use the tensor 'token_scores'"),
        (lambda: text_model(UNIGRAM), TokenizerError, "'token_scores', which it needs, is missing"),
    ],
)
def test_verify_rejects_values_that_opening_does_not_read(path, text, error, message):
    write(path, text())
    smallfry.open(path).close()
    with pytest.raises(error, match=message):
        verify(path)


def test_verify_compares_the_trie_with_the_vocabulary(path):
    write(path, text_model(), Vocabulary.build(TOKENS))
    verify(path)
    write(path, text_model(), Vocabulary.build([*TOKENS[:3], "d"]))
    with pytest.raises(TokenizerError, match="token_trie does not have the token of row 3, 'd'"):
        verify(path)


def hostile(path, raw):
    path.write_bytes(raw)
    try:
        encoder = smallfry.open(path).encoder()
        encoder.encode(["a b c", "x ##a", "b" * 50])
        ids, offsets = encoder.token_ids(["c b a x"])
        encoder.pool(ids, offsets)
    except (SfqError, IndexError):
        return


@given(st.data())
def test_changed_bytes_are_used_or_rejected(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("hostile") / "t.sfq"
    write(path, text_model(token_rows=ROWS), Vocabulary.build(TOKENS))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        start = 0 if data.draw(st.booleans()) else 4096
        raw[data.draw(st.integers(start, len(raw) - 1))] = data.draw(st.integers(0, 255))
    hostile(path, raw)


@given(st.data())
def test_random_tables_are_used_or_rejected(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("hostile") / "t.sfq"
    write(path, text_model(UNIGRAM, token_scores=SCORES, token_rows=ROWS), Vocabulary.build(TOKENS))
    header, raw = sfq.map(path).header, bytearray(path.read_bytes())
    for name in data.draw(
        st.sets(st.sampled_from([n for n in TextTensors._fields[1:] if n in header.tensors]))
    ):
        entry = header.tensors[name]
        noise = np.random.default_rng(data.draw(st.integers(0, 1000))).bytes(entry.end - entry.begin)
        raw[header.data_start + entry.begin : header.data_start + entry.end] = noise
    hostile(path, raw)
