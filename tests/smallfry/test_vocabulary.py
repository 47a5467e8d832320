import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import InputError, TokenTableError
from smallfry.kernels.numpy import tokens as numpy_tokens
from smallfry.vocabulary import PROBE_LIMIT, PackedTokens, Vocabulary

native_tokens = pytest.importorskip("smallfry._native") if kernels.native else numpy_tokens

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
unique_tokens = st.lists(any_text, unique=True, max_size=60)
any_string = st.text(st.characters(exclude_categories=[]), max_size=20)


@pytest.fixture(params=["native", "numpy"])
def kernel(request, monkeypatch):
    """Run the test on the native kernels, then on the NumPy ones."""
    module = {"native": native_tokens, "numpy": numpy_tokens}[request.param]
    for name in ("TokenIndex", "pack_tokens", "build_index"):
        monkeypatch.setattr(kernels, name, getattr(module, name))
    return module


def packed(tokens):
    encoded = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return PackedTokens(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def numbered(count):
    return [f"token-{i}" for i in range(count)]


@given(unique_tokens, st.lists(any_string, max_size=30))
def test_find_agrees_with_a_dict(tokens, others):
    rows = {token: row for row, token in enumerate(tokens)}
    queries = tokens[::-1] + others
    assert Vocabulary.build(tokens).find(queries).tolist() == [rows.get(token, -1) for token in queries]


@given(unique_tokens)
def test_tokens_come_back_in_row_order(tokens):
    vocabulary = Vocabulary.build(tokens)
    assert list(vocabulary) == tokens
    assert [vocabulary.token(row) for row in range(len(vocabulary))] == tokens


@given(unique_tokens)
def test_in_agrees_with_a_set(tokens):
    vocabulary = Vocabulary.build(tokens)
    for token in [*tokens, "no such token", "\ud800", 3, None, b"the"]:
        assert (token in vocabulary) == (token in set(tokens))


@given(unique_tokens, st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_native_and_numpy_place_the_same_slots(tokens, seed, spare):
    slot_count = PROBE_LIMIT + len(tokens) + spare
    native, *_ = native_tokens.build_index(*packed(tokens), slot_count, seed)
    numpy, *_ = numpy_tokens.build_index(*packed(tokens), slot_count, seed)
    np.testing.assert_array_equal(native, numpy)


@given(st.lists(any_string, max_size=40))
def test_native_and_numpy_pack_the_same_bytes(tokens):
    for native, numpy in zip(
        native_tokens.pack_tokens(tokens), numpy_tokens.pack_tokens(tokens), strict=True
    ):
        np.testing.assert_array_equal(native, numpy)


@given(unique_tokens, st.lists(any_string, max_size=30), st.integers(0, 3))
def test_native_and_numpy_find_the_same_rows(tokens, others, seed):
    buf, offsets = packed(tokens)
    slots, *_ = native_tokens.build_index(buf, offsets, PROBE_LIMIT + 2 * len(tokens), seed)
    arrays = (buf, offsets.astype(np.uint64), slots, seed)
    native, numpy = native_tokens.TokenIndex(*arrays), numpy_tokens.TokenIndex(*arrays)
    queries = others + tokens
    np.testing.assert_array_equal(native.find(queries), numpy.find(queries))


@given(unique_tokens, st.lists(any_text, max_size=20))
def test_find_utf8_agrees_with_find(tokens, others):
    vocabulary = Vocabulary.build(tokens)
    queries = others + tokens
    buf, offsets = packed(queries)
    for some_buf in (buf, buf.tobytes(), memoryview(buf.tobytes())):
        for dtype in (np.int32, np.uint64):
            found = vocabulary.find_utf8(some_buf, offsets.astype(dtype))
            np.testing.assert_array_equal(found, vocabulary.find(queries))


@settings(max_examples=50)
@given(unique_tokens.filter(len), st.data())
def test_damaged_vocabulary_returns_or_raises(tokens, data):
    whole = Vocabulary.build(tokens)
    offsets, index = whole.offsets.copy(), whole.index.copy()
    values = st.integers(0, 2**32 - 1)
    for array in (offsets[1:-1], index):
        if len(array):
            array[data.draw(st.integers(0, len(array) - 1))] = data.draw(values)
    damaged = Vocabulary.from_arrays(whole.tokens, offsets, index, whole.seed)
    numpy = numpy_tokens.TokenIndex(whole.tokens, offsets, index, whole.seed)
    for token in [*tokens, "other"]:
        results = []
        for find in (damaged.find, numpy.find):
            try:
                results.append(find([token]).tolist())
            except TokenTableError as error:
                results.append(str(error))
        assert results[0] == results[1]


def test_nul_is_part_of_a_token(kernel):
    assert Vocabulary.build(["a", "a\0", "\0"]).find(["a\0", "a", "\0", "\0\0"]).tolist() == [1, 0, 2, -1]


def test_empty_string_is_a_token(kernel):
    assert Vocabulary.build(["x", ""]).find(["", "x"]).tolist() == [1, 0]


def test_empty_vocabulary_finds_nothing(kernel):
    vocabulary = Vocabulary.build([])
    assert len(vocabulary) == 0
    assert vocabulary.find(["a", ""]).tolist() == [-1, -1]


def test_empty_list_returns_an_empty_array(kernel):
    rows = Vocabulary.build(["a"]).find([])
    assert rows.shape == (0,) and rows.dtype == np.int64


def test_lone_surrogate_is_unknown(kernel):
    assert Vocabulary.build(["a", ""]).find(["a", "x\udc80", "\ud83d", "a"]).tolist() == [0, -1, -1, 0]


def test_any_sequence_of_strings_is_looked_up(kernel):
    vocabulary = Vocabulary.build(["a", "b"])
    assert vocabulary.find(("b", "a")).tolist() == [1, 0]
    assert vocabulary.find(np.array(["b", "z"])).tolist() == [1, -1]


def test_element_that_is_not_a_string_is_named(kernel):
    with pytest.raises(TypeError, match=r"tokens\[1\] is int, expected str"):
        Vocabulary.build(["a"]).find(["a", 7])


def test_one_string_is_not_taken_for_its_characters():
    with pytest.raises(TypeError, match="tokens is one str, expected a list"):
        Vocabulary.build(["a"]).find("a")
    with pytest.raises(TypeError, match="tokens is one str, expected a list"):
        Vocabulary.build("ab")


def test_duplicate_is_named_with_both_rows(kernel):
    with pytest.raises(InputError, match="token 'b' occurs twice, in rows 1 and 3"):
        Vocabulary.build(["a", "b", "c", "b", "a", "b"])


def test_many_duplicates_are_still_named(kernel):
    with pytest.raises(InputError, match="token 'same' occurs twice, in rows 0 and 1"):
        Vocabulary.build(["same"] * 1000)


def test_first_of_equal_tokens_names_its_row(kernel):
    vocabulary = Vocabulary.build(["a", "b", "a", "", "", "c"], unnamed=True)
    assert vocabulary.find(["a", "b", "", "c"]).tolist() == [0, 1, 3, 5]
    assert list(vocabulary) == ["a", "b", "a", "", "", "c"]
    assert vocabulary.count_unnamed() == 2


def test_token_that_is_not_utf8_names_no_row(kernel):
    vocabulary = Vocabulary.build(packed([b"\xff", b"a", b"\xe2\x82", b"\xff"]), unnamed=True)
    assert vocabulary.find(["a", "\ufffd", ""]).tolist() == [1, -1, -1]
    assert [vocabulary.token(row) for row in range(4)] == ["\ufffd", "a", "\ufffd", "\ufffd"]
    assert vocabulary.find_utf8(b"\xffa", np.array([0, 1, 2])).tolist() == [-1, 1]
    assert vocabulary.count_unnamed() == 3


@given(st.lists(st.binary(max_size=3), max_size=60), st.integers(0, 2**64 - 1))
def test_native_and_numpy_leave_the_same_rows_unnamed(tokens, seed):
    buf, offsets = packed(tokens)
    for dtype in (np.uint32, np.uint64, np.int64):
        arguments = (buf, offsets.astype(dtype), PROBE_LIMIT + 2 * len(tokens), seed)
        native, numpy = native_tokens.build_index(*arguments), numpy_tokens.build_index(*arguments)
        np.testing.assert_array_equal(native[0], numpy[0])
        assert native[1:] == numpy[1:]


def test_surrogate_cannot_be_a_token(kernel):
    with pytest.raises(InputError, match="of row 1 has a lone surrogate"):
        Vocabulary.build(["a", "\ud800"])


def test_bytes_are_tokens_when_they_are_utf8():
    assert list(Vocabulary.build([b"caf\xc3\xa9", "th\u00e9"])) == ["café", "thé"]
    with pytest.raises(InputError, match="of row 1 is not valid UTF-8"):
        Vocabulary.build([b"a", b"\xff"])


def test_packed_tokens_make_the_same_vocabulary():
    tokens = ["a", "", "🎉", "New York"]
    whole, from_packed = Vocabulary.build(tokens), Vocabulary.build(packed(tokens))
    np.testing.assert_array_equal(whole.index, from_packed.index)
    np.testing.assert_array_equal(whole.tokens, from_packed.tokens)


@pytest.mark.parametrize(
    ("buf", "offsets", "message"),
    [
        (b"a\xff", [0, 1, 2], r"token b'\\xff' of row 1 is not valid UTF-8"),
        ("é".encode(), [0, 1, 2], r"token b'\\xc3' of row 0 is not valid UTF-8"),
        (b"abc", [0, 2], "run from 0 to 2, expected 0 to 3"),
        (b"abc", [1, 3], "run from 1 to 3, expected 0 to 3"),
        (b"abc", [0, 2, 1, 3], r"offsets\[2\] is 1, expected 2 to 3"),
        (b"", [], "are empty"),
    ],
)
def test_packed_tokens_that_are_malformed_are_rejected(kernel, buf, offsets, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.build((np.frombuffer(buf, np.uint8), np.array(offsets, np.int64)))


@pytest.mark.parametrize("offsets", [[0, 5], [2, 1], [-1, 1], []])
def test_packed_queries_outside_their_bytes_are_rejected(kernel, offsets):
    with pytest.raises(InputError, match="offsets"):
        Vocabulary.build(["a"]).find_utf8(b"abc", np.array(offsets, np.int64))


@pytest.mark.parametrize("row", [-1, 2])
def test_row_out_of_range_is_rejected(row):
    with pytest.raises(IndexError, match=f"row {row} is out of range: the vocabulary has rows 0 to 1"):
        Vocabulary.build(["a", "b"]).token(row)


def test_arrays_open_again():
    whole = Vocabulary.build(numbered(1000))
    again = Vocabulary.from_arrays(whole.tokens, whole.offsets, whole.index, whole.seed)
    assert again.find(["token-999", "token-1000"]).tolist() == [999, -1]


def test_read_only_arrays_of_64_bit_offsets_open():
    whole = Vocabulary.build(["a", "b"])
    offsets = whole.offsets.astype(np.uint64)
    offsets.flags.writeable = False
    assert Vocabulary.from_arrays(whole.tokens, offsets, whole.index, whole.seed).find(["b"]).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.zeros(2, np.int8)}, "tokens is int8"),
        ({"offsets": np.array([0, 1, 2], np.int32)}, "token_offsets is int32"),
        ({"index": np.zeros((2, 64), np.uint32)}, r"token_index is uint32 \[2, 64\]"),
        ({"offsets": np.array([], np.uint32)}, "token_offsets has 0 entries"),
        ({"offsets": np.array([1, 1, 2], np.uint32)}, "run from 1 to 2, expected 0 to 2"),
        ({"offsets": np.array([0, 1, 3], np.uint32)}, "run from 0 to 3, expected 0 to 2"),
        ({"index": np.zeros(63, np.uint32)}, "has 63 slots, expected at least 64"),
    ],
)
def test_arrays_that_contradict_each_other_are_rejected(change, message):
    whole = Vocabulary.build(["a", "b"])
    arrays = {"tokens": whole.tokens, "offsets": whole.offsets, "index": whole.index} | change
    with pytest.raises(TokenTableError, match=message):
        Vocabulary.from_arrays(**arrays, seed=0)


def test_slot_that_names_no_row_raises(kernel):
    whole = Vocabulary.build(numbered(5))
    index = np.where(whole.index, whole.index | 7, 0).astype(np.uint32)
    damaged = Vocabulary.from_arrays(whole.tokens, whole.offsets, index, whole.seed)
    with pytest.raises(TokenTableError, match="names row 6, but there are 5 rows"):
        damaged.find(["token-3"])


def test_table_that_would_make_probes_long_is_not_built(kernel):
    for count, built in ((PROBE_LIMIT, True), (PROBE_LIMIT + 1, False)):
        index, duplicate, _ = kernel.build_index(*packed(numbered(count)), 3 * PROBE_LIMIT, 0)
        assert index is not None
        index, duplicate, _ = kernel.build_index(*packed(numbered(count)), PROBE_LIMIT, 0)
        assert (index is not None) == built and duplicate is None


def test_next_seed_is_tried_where_tokens_crowd(monkeypatch):
    tried = []

    def crowded_twice(tokens, offsets, slot_count, seed):
        tried.append((slot_count, seed))
        if len(tried) < 10:
            return None, None, None
        return numpy_tokens.build_index(tokens, offsets, slot_count, seed)

    monkeypatch.setattr(kernels, "build_index", crowded_twice)
    vocabulary = Vocabulary.build(numbered(300))
    assert tried == [(463, seed) for seed in range(8)] + [(863, 0), (863, 1)]
    assert vocabulary.seed == 1
    np.testing.assert_array_equal(vocabulary.find(numbered(300)), np.arange(300))


def test_tokens_that_crowd_under_every_seed_are_rejected(monkeypatch):
    monkeypatch.setattr(kernels, "build_index", lambda *_: (None, None, None))
    with pytest.raises(InputError, match="hashes of these 2 tokens collide under every seed below 8"):
        Vocabulary.build(["a", "b"])


def test_token_is_never_read_past_the_last_byte(kernel):
    whole = Vocabulary.build(["aa", "bb"])
    offsets = np.array([0, 2**31, 4], np.uint32)
    damaged = Vocabulary.from_arrays(whole.tokens, offsets, whole.index, whole.seed)
    for token in ("aa", "bb"):
        with pytest.raises(TokenTableError, match="there are 4 bytes of tokens"):
            damaged.find([token])
    with pytest.raises(TokenTableError, match="there are 4 bytes of tokens"):
        damaged.token(0)


def test_vocabulary_of_400_000_tokens_takes_less_than_8_mb():
    vocabulary = Vocabulary.build([f"t{i:06}" for i in range(400_000)])
    assert vocabulary.nbytes == {"tokens": 2_800_000, "token_offsets": 1_600_004, "token_index": 2_133_588}


def test_real_tokens_are_found_at_their_rows(real_data):
    with gzip.open(real_data / "vocabulary" / "english-321k.tsv.gz", "rt", encoding="utf-8") as lines:
        tokens = [line.split("\t")[0] for line in lines]
    vocabulary = Vocabulary.build(tokens)
    np.testing.assert_array_equal(vocabulary.find(tokens), np.arange(len(tokens)))
    assert (vocabulary.find([token + "\0" for token in tokens]) == -1).all()
    np.testing.assert_array_equal(
        vocabulary.find_utf8(vocabulary.tokens, vocabulary.offsets), np.arange(321_180)
    )


def test_token_sets_keep_the_first_of_equal_tokens():
    for module in (native_tokens, numpy_tokens):
        seen = module.TokenSet()
        assert seen.add(*packed(["a", "b", "a", ""])).tolist() == [True, True, False, True]
        assert seen.add(*packed(["", "c", "b"])).tolist() == [False, True, False]
        assert len(seen) == 4


@given(st.lists(st.lists(any_text, max_size=30), max_size=4))
def test_token_sets_agree_with_a_set(batches):
    for module in (native_tokens, numpy_tokens):
        seen, known = module.TokenSet(), set()
        for tokens in batches:
            first = [not (token in known or known.add(token)) for token in tokens]
            assert seen.add(*packed(tokens)).tolist() == first


def test_token_sets_grow():
    seen = native_tokens.TokenSet()
    for begin in range(0, 20_000, 1000):
        assert seen.add(*packed(numbered(begin + 1000)[begin // 2 :]))[begin - begin // 2 :].all()
    assert len(seen) == 20_000


def test_lengths_are_the_bytes_of_tokens():
    assert Vocabulary.build(["a", "", "Ü", "🍟"]).lengths([3, 0, 1, 2]).tolist() == [4, 1, 0, 2]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_lengths_of_damaged_offsets_are_within_the_tokens(dtype):
    most = np.iinfo(dtype).max
    vocabulary = Vocabulary.from_arrays(
        np.zeros(4, np.uint8), np.array([0, 2, 1, most, 0, 4], dtype), np.zeros(64, np.uint32), 0
    )
    assert vocabulary.lengths(range(5)).tolist() == [2, 0, 3, 0, 4]


def test_tokens_of_rows_are_selected():
    assert Vocabulary.build(["a", "", "Ü", "🍟"]).select([3, 0, 1]) == ["🍟", "a", ""]


def test_tokens_that_overlap_are_not_selected():
    vocabulary = Vocabulary.from_arrays(
        np.zeros(4, np.uint8), np.array([0, 4, 0, 4, 0, 4], np.uint32), np.zeros(64, np.uint32), 0
    )
    assert vocabulary.select([2]) == ["\0" * 4]
    with pytest.raises(TokenTableError, match="of 2 rows have 8 bytes, but there are 4 bytes of tokens"):
        vocabulary.select([0, 2])
