"""Tokens of texts: models, normalizers, pre-tokenizers, added tokens, limits and damaged tables."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import InputError, TokenizerError
from tests.helpers.tokenizer_tables import (
    JOINS_PREVIOUS,
    SPACED,
    Tables,
    characters,
    trie,
    unigram_tables,
    wordpiece_tables,
)

pytestmark = pytest.mark.skipif(not kernels.native, reason="needs the native module")

MARK = "\u2581"
WORDS = ["[UNK]", "un", "##able", "##ab", "##le", "a", "##a", "aff", "##ord", "日", ".", "b"]
LETTERS = {"<unk>": 0.0, "a": -1.0, "b": -1.0, "c": -1.0, "ab": -1.5, "bc": -1.5, "abc": -9.0}


def split(tables: Tables, *texts: str, **limits: int) -> list[list[int]]:
    ids, offsets = kernels.Tokenizer(*tables).tokenize(texts, **limits)
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    return [part.tolist() for part in np.split(ids, offsets[1:-1])]


def pieces(tables: Tables, text: str) -> list[str]:
    """Return the normalized pieces of a text: each character is a token, and marks where a piece begins."""
    units = {chr(code): code for code in (*range(1, 128), 0x301, 0x2581, 0x65E5, 0x672C)}
    settings, tensors = tables
    both = units | {f"##{character}": code + 0x10000 for character, code in units.items()}
    settings |= {"model": {"type": "wordpiece", "unknown": 0, "prefix": "##", "max_characters": 1000}}
    found: list[str] = []
    for token in split((settings, tensors | {"token_trie": trie(both)}), text)[0]:
        if token < 0x10000:
            found.append("")
        found[-1] += chr(token & 0xFFFF)
    return found


class TestWordPiece:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("unable", [1, 2]),
            ("unaba", [1, 3, 6]),
            ("afford un", [7, 8, 1]),
            ("unx", [0]),
            ("日.b", [9, 10, 11]),
            ("able", [0]),
            ("", []),
        ],
    )
    def test_the_longest_token_comes_first(self, text: str, expected: list[int]) -> None:
        assert split(wordpiece_tables(WORDS), text) == [expected]

    def test_a_word_of_too_many_characters_is_unknown(self) -> None:
        tables = wordpiece_tables(["[UNK]", "a", "##a", "日", "##日"])
        texts = ["a" * 100, "a" * 101, "日" * 100, "日" * 101]
        assert list(map(len, split(tables, *texts))) == [100, 1, 100, 1]


class TestUnigram:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("abc", [1, 5]),  # as good as ab, c, which is found later
            ("aab", [1, 4]),
            ("axyb", [1, 0, 2]),
            ("xx", [0]),
        ],
    )
    def test_the_best_path(self, text: str, expected: list[int]) -> None:
        assert split(unigram_tables(LETTERS), text) == [expected]

    def test_fused_unknown_characters_may_be_a_token_or_bytes(self) -> None:
        scores = LETTERS | {"xy": -99.0, "<0xC3>": 0.0, "<0xA9>": 0.0, "<0x78>": 0.0}
        tables = unigram_tables(scores, byte_fallback=True)
        assert split(tables, "axyb", "aéb", "axb", "ayb") == [[1, 7, 2], [1, 8, 9, 2], [1, 10, 2], [1, 0, 2]]

    def test_a_known_token_that_is_the_unknown_one_is_fused(self) -> None:
        tables = unigram_tables({".": 0.0, "a": 0.0, "..": -50.0}, unknown=0)
        assert split(tables, "a..a", "a.?.") == [[1, 2, 1], [1, 0]]

    def test_without_an_unknown_token(self) -> None:
        with pytest.raises(TokenizerError, match="no unknown token"):
            split(unigram_tables({"a": 0.0}, unknown=None), "b")


class TestNormalizer:
    @pytest.mark.parametrize(
        ("steps", "text", "expected"),
        [
            ([{"type": "prepend", "content": MARK}], "a", f"{MARK}a"),
            ([{"type": "prepend", "content": MARK}], "", ""),
            ([{"type": "replace", "pattern": "ab", "content": "c"}], "abaab", "cac"),
            ([{"type": "replace_runs", "pattern": " ", "least": 2, "content": "_"}], "a b  c   d", "a b_c_d"),
            ([{"type": "strip", "left": True, "right": True}], " \u3000a b\t ", "a b"),
            ([{"type": "strip", "left": False, "right": True}], "  a ", "  a"),
            (
                [
                    {"type": "replace", "pattern": "a", "content": "b"},
                    {"type": "strip", "left": True, "right": False},
                    {"type": "replace", "pattern": "b", "content": "c"},
                ],
                " ab",
                "cc",
            ),
        ],
    )
    def test_steps(self, steps: list[dict[str, Any]], text: str, expected: str) -> None:
        found = pieces(wordpiece_tables(WORDS, normalizer=steps, pre_tokenizer=[]), text)
        assert found == ([expected] if expected else [])

    def test_characters_are_replaced_removed_and_surrounded_by_spaces(self) -> None:
        mapped = characters({"A": "a", "\0": "", "é": "e", "½": "1/2", "\t": " "}, {"日": SPACED})
        options = {"normalizer": [{"type": "characters"}], "pre_tokenizer": []}
        tables = wordpiece_tables(WORDS, **options, **mapped)
        assert pieces(tables, "A\0é½\t日b") == ["ae1/2  日 b"]

    def test_a_charsmap_replaces_small_graphemes_as_a_whole(self) -> None:
        joined = characters(classes={"\u0301": JOINS_PREVIOUS, "\u200d": JOINS_PREVIOUS})
        charsmap = trie({"a": 0, "e\u0301": 2, "b": 4, "\r": 2, "\u200d": 7})
        tables = wordpiece_tables(
            WORDS,
            normalizer=[{"type": "charsmap"}],
            pre_tokenizer=[],
            charsmap=charsmap,
            charsmap_text=np.frombuffer(b"x\0e\0yz\0", np.uint8),
            **joined,
        )
        texts = {
            "a": "x",
            "bcb": "yzcyz",
            "e\u0301": "e",
            "a\u0301": "x",  # the shortest prefix replaces the whole grapheme
            "a\u0301\u0301\u200d": "x\u0301\u0301",  # 8 bytes: by characters
            "\r\nc": "ec",
        }
        for text, expected in texts.items():
            assert pieces(tables, text) == [expected], text


class TestPreTokenizer:
    @pytest.mark.parametrize(
        ("steps", "text", "expected"),
        [
            (["bert"], " a-b  c.. ", ["a", "-", "b", "c", ".", "."]),
            (["whitespace_split"], " a-b\u3000c.. ", ["a-b", "c.."]),
            (["whitespace"], "a-b  c_1.. 日本!", ["a", "-", "b", "c_1", "..", "日本", "!"]),
            (["punctuation"], "a b,c", ["a b", ",", "c"]),
            (["whitespace_split", "punctuation"], "a b,c", ["a", "b", ",", "c"]),
        ],
    )
    def test_steps(self, steps: list[str], text: str, expected: list[str]) -> None:
        tables = wordpiece_tables(WORDS, pre_tokenizer=[{"type": step} for step in steps])
        assert pieces(tables, text) == expected

    @pytest.mark.parametrize(
        ("prepend", "split", "text", "expected"),
        [
            ("always", True, "a b", [f"{MARK}a", f"{MARK}b"]),
            ("always", True, f" {MARK}a b ", [MARK, f"{MARK}a", f"{MARK}b", MARK]),
            ("always", False, "a b", [f"{MARK}a{MARK}b"]),
            ("never", True, "a  b", ["a", MARK, f"{MARK}b"]),
        ],
    )
    def test_metaspace(self, prepend: str, split: bool, text: str, expected: list[str]) -> None:
        step = {"type": "metaspace", "replacement": MARK, "prepend": prepend, "split": split}
        assert pieces(wordpiece_tables(WORDS, pre_tokenizer=[step]), text) == expected

    def test_metaspace_marks_the_first_piece_only(self) -> None:
        step = {"type": "metaspace", "replacement": MARK, "prepend": "first", "split": True}
        steps = [{"type": "whitespace_split"}, step]
        assert pieces(wordpiece_tables(WORDS, pre_tokenizer=steps), "a b") == [f"{MARK}a", "b"]
        assert pieces(wordpiece_tables(WORDS, pre_tokenizer=steps), " a b") == ["a", "b"]
        # The space before a spaced character comes from that character.
        spaced = {"normalizer": [{"type": "characters"}], **characters(classes={"日": SPACED})}
        assert pieces(wordpiece_tables(WORDS, pre_tokenizer=steps, **spaced), "日b") == [f"{MARK}日", "b"]


class TestAddedTokens:
    @pytest.mark.parametrize(
        ("token", "text", "expected"),
        [
            ({}, "a<x>b", [5, 90, 11]),
            ({}, "<x><x>", [90, 90]),
            ({"single_word": True}, "a<x> <x>b <x>", [5, 0, 0, 0, 0, 0, 0, 11, 90]),
            ({"single_word": True}, "a <x>, <x>", [5, 90, 0, 90]),
            ({"lstrip": True}, "a  <x> b", [5, 90, 11]),
            ({"rstrip": True}, "<x>  <x> b", [90, 90, 11]),
        ],
    )
    def test_tokens_in_a_text(self, token: dict[str, Any], text: str, expected: list[int]) -> None:
        tables = wordpiece_tables(WORDS, added=[{"id": 90, "content": "<x>"} | token])
        assert split(tables, text) == [expected]

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [({}, [1, 9, 1]), ({"lstrip": True}, [9, 1]), ({"rstrip": True}, [1, 9])],
    )
    def test_white_space_goes_to_the_token(self, flags: dict[str, bool], expected: list[int]) -> None:
        tables = unigram_tables({"<unk>": 0.0, " ": -1.0}, added=[{"id": 9, "content": "x"} | flags])
        assert split(tables, " x ") == [expected]

    def test_the_longest_of_the_leftmost_tokens(self) -> None:
        added = [{"id": 90 + i, "content": content} for i, content in enumerate(["<", "<a", "<a>>", "a>"])]
        assert split(wordpiece_tables(WORDS, added=added), "<a>", "<a>>", "a><") == [[91, 0], [92], [93, 90]]

    def test_normalized_tokens_are_found_in_the_normalized_text(self) -> None:
        tables = wordpiece_tables(
            WORDS,
            normalizer=[{"type": "replace", "pattern": "Q", "content": "q"}],
            added=[
                {"id": 90, "content": "qq", "normalized": True},
                {"id": 91, "content": "Qa", "normalized": False},
            ],
        )
        assert split(tables, "aQqb", "QaQQ") == [[5, 90, 11], [91, 90]]


class TestLimits:
    def test_the_rest_of_a_text_is_left_out(self) -> None:
        tables = wordpiece_tables(WORDS, added=[{"id": 90, "content": "<x>"}])
        text = "unable a <x> b"
        assert split(tables, text, max_tokens=3) == [[1, 2, 5]]
        assert split(tables, text, max_tokens=1) == [[1]]
        assert split(tables, text, max_tokens=4, skip=5) == [[1, 2, 90]]
        assert split(tables, text, "日日日", max_characters=2) == [[1], [0]]

    def test_texts_that_cannot_be_encoded(self) -> None:
        with pytest.raises(InputError, match=r"texts\[1\] has a lone surrogate"):
            split(wordpiece_tables(WORDS), "a", "b\ud800")
        with pytest.raises(TypeError, match=r"texts\[0\] is int, expected str"):
            kernels.Tokenizer(*wordpiece_tables(WORDS)).tokenize([1])

    @pytest.mark.parametrize("text", ["a", "    ", "\u0301", "<x> ", "日"])
    def test_time_is_linear_in_the_text(self, text: str) -> None:
        options: dict[str, Any] = {
            "normalizer": [{"type": "strip", "left": True, "right": True}, {"type": "charsmap"}],
            "charsmap": trie({"a": 0}),
            "charsmap_text": np.frombuffer(b"a\0", np.uint8),
            "added": [
                {"id": 1, "content": "<x>", "lstrip": True, "rstrip": True},
                {"id": 1, "content": "  ", "lstrip": True, "rstrip": True},
            ],
        } | characters(classes={"\u0301": JOINS_PREVIOUS})
        scores = LETTERS | {"a" * length: -float(length) for length in range(2, 20)}
        begin = time.process_time()
        split(unigram_tables(scores, **options), text * 250_000)
        split(wordpiece_tables(WORDS, **options), text * 250_000)
        assert time.process_time() - begin < 5


class TestDamagedTables:
    @pytest.mark.parametrize("name", ["token_trie", "characters", "character_blocks", "token_scores"])
    def test_a_missing_tensor(self, name: str) -> None:
        settings, tensors = unigram_tables(LETTERS)
        del tensors[name]
        with pytest.raises(TokenizerError, match=f"needs the tensor '{name}'"):
            kernels.Tokenizer(settings, tensors)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model": {"type": "rnn", "unknown": 0}}, "model 'rnn'"),
            ({"normalizer": [{"type": "nfc"}]}, "normalizer 'nfc'"),
            ({"pre_tokenizer": [{"type": "digits"}]}, "pre-tokenizer 'digits'"),
            ({"pre_tokenizer": [{"type": "bert"}] * 17}, "has 17 pre-tokenizers"),
            (
                {"pre_tokenizer": [{"type": "byte_level", "prefix_space": False, "pattern": None}] * 2},
                "2 of them of type 'byte_level'",
            ),
            ({"normalizer": [{"type": "replace", "pattern": "", "content": ""}]}, "'pattern'"),
            ({"normalizer": [{"type": "prepend", "content": "\ud800"}]}, "'content'"),
            ({"added": 3}, "'added'"),
            ({"normalizer": None}, "'normalizer'"),
        ],
    )
    def test_invalid_settings(self, change: dict[str, Any], message: str) -> None:
        settings, tensors = wordpiece_tables(WORDS)
        with pytest.raises(TokenizerError, match=message):
            kernels.Tokenizer(settings | change, tensors)

    def test_a_text_may_not_grow_without_bound(self) -> None:
        steps = [{"type": "replace", "pattern": "a", "content": "a" * 50}] * 5
        with pytest.raises(TokenizerError, match="16 times as long"):
            split(wordpiece_tables(WORDS, normalizer=steps), "a" * 10_000)

    def test_a_trie_with_a_cycle_takes_bounded_time(self) -> None:
        units = np.array([1 << 10, *[0x61 | 256 | (0x60 ^ 0x61) << 10] * 255], np.uint32)
        for tables, tensors in (unigram_tables(LETTERS), wordpiece_tables(WORDS)):
            with contextlib.suppress(TokenizerError):
                split((tables, tensors | {"token_trie": units}), "a" * 20_000)

    @settings(deadline=None)
    @given(st.data())
    def test_any_arrays_give_tokens_or_an_error(self, data: st.DataObject) -> None:
        steps = {"normalizer": [{"type": "characters"}, {"type": "charsmap"}]}
        tables, tensors = data.draw(st.sampled_from(WHOLE))
        damaged = {}
        for name, kind in ARRAYS.items():
            size = np.dtype(kind).itemsize
            content = data.draw(st.binary(max_size=300 * size))
            damaged[name] = np.frombuffer(content[: len(content) // size * size], kind)
        for keep in data.draw(st.sets(st.sampled_from([*tensors]))):
            damaged[keep] = tensors[keep]
        with contextlib.suppress(TokenizerError):
            kernels.Tokenizer(tables | steps, tensors | damaged).tokenize(data.draw(st.lists(st.text())))


ARRAYS = {
    "token_trie": np.uint32,
    "charsmap": np.uint32,
    "charsmap_text": np.uint8,
    "characters": np.uint32,
    "character_blocks": np.uint16,
    "character_text": np.uint8,
    "token_scores": np.float64,
}
WHOLE = [unigram_tables(LETTERS), wordpiece_tables(WORDS)] if kernels.native else []
