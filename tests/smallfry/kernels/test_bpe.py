"""Byte pair encoding over hand-made tables: merges, unknown characters, bytes, and damaged tables."""

from __future__ import annotations

import string
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from smallfry import kernels
from smallfry.errors import TokenizerError
from smallfry.text.merges import build_merge_index
from tests.helpers.tokenizer_tables import characters, tables

pytestmark = pytest.mark.skipif(not kernels.native, reason="needs the native module")

LETTER, NUMBER = 8, 16
WORDS = ["<unk>", "a", "b", "ab", "aa", "abb", "<0xC3>", "<0xA9>"]
MERGES = [(1, 1, 4), (1, 2, 3), (3, 2, 5)]


def bpe_tables(merges: Sequence[tuple[int, int, int]], words: Sequence[str] = WORDS, **change: Any) -> Any:
    model = {"type": "bpe", "unknown": None}
    flags = {name: change.pop(name, False) for name in ("fuse_unknown", "byte_fallback", "ignore_merges")}
    model |= {"unknown": change.pop("unknown", None), **flags}
    rows = np.array(merges, np.uint32).reshape(-1, 3)
    arrays = {"token_merges": rows, "merge_index": build_merge_index(rows)} | change
    return tables(model, {word: number for number, word in enumerate(words)}, **arrays)


def split(tables: Any, text: str) -> list[int]:
    ids: list[int] = kernels.Tokenizer(*tables).tokenize([text])[0].tolist()
    return ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab", [3]),
        ("abb", [5]),
        ("aab", [4, 2]),  # the lower rank first, not the left one
        ("aaa", [4, 1]),  # of equal ranks, the left one
        ("aaaab", [4, 4, 2]),
        ("b", [2]),
        ("", []),
    ],
)
def test_merges(text: str, expected: list[int]) -> None:
    assert split(bpe_tables(MERGES), text) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3, 3]),
        ({"unknown": 0}, [3, 0, 0, 0, 3]),
        ({"unknown": 0, "fuse_unknown": True}, [3, 0, 3]),
        # An unknown token is behind the bytes that follow it, as in the tokenizers package.
        ({"unknown": 0, "byte_fallback": True}, [3, 6, 7, 0, 0, 3]),
        ({"unknown": 0, "byte_fallback": True, "fuse_unknown": True}, [3, 6, 7, 0, 3]),
    ],
)
def test_unknown_characters(options: dict[str, Any], expected: list[int]) -> None:
    assert split(bpe_tables(MERGES, **options), "abxéyab") == expected


@pytest.mark.parametrize(
    ("merges", "unknown", "expected"),
    [
        ([(1, 2, 3), (1, 1, 4)], 0, [4, 3, 3]),
        ([(1, 2, 3), (2, 1, 5), (3, 5, 6)], None, [1, 1, 3, 3]),
        ([(2, 1, 5), (1, 2, 3)], None, [1, 1, 1, 5, 2]),  # across the words
    ],
)
def test_words_of_marks(merges: list[tuple[int, int, int]], unknown: int | None, expected: list[int]) -> None:
    words = ["<unk>", "▁", "b", "▁b", "▁▁", "b▁", "▁bb▁"]
    assert split(bpe_tables(merges, words, unknown=unknown), "▁▁▁b▁b") == expected


@pytest.mark.parametrize(("unknown", "expected"), [(0, [1, 0, 1]), (None, [4])])
def test_marks_around_a_character_that_is_left_out(unknown: int | None, expected: list[int]) -> None:
    tables = bpe_tables([(1, 1, 4)], ["<unk>", "▁", "b", "c", "▁▁"], unknown=unknown)
    assert split(tables, "▁\0▁") == expected


def test_an_unknown_token_that_is_the_mark() -> None:
    assert split(bpe_tables([(1, 1, 2)], ["b", "▁", "▁▁"], unknown=1), "x▁b▁") == [2, 0, 1]


@pytest.mark.parametrize(("ignore_merges", "expected"), [(False, [1, 2, 0]), (True, [3])])
def test_a_piece_that_is_a_token(ignore_merges: bool, expected: list[int]) -> None:
    words = ["c", "a", "b", "abc"]
    assert split(bpe_tables([], words, ignore_merges=ignore_merges), "abc") == expected


@pytest.mark.parametrize(
    ("pattern", "prefix_space", "expected"),
    [
        ("gpt2", False, ["I", "'ll", "Ġwe", "Ġ", "Ġgo", "Ċ", "Ċ", "12345", "Ġx", "!!"]),
        ("llama3", False, ["I", "'ll", "Ġwe", "Ġ", "Ġgo", "ĊĊ", "123", "45", "Ġx", "!!"]),
        ("gpt2", True, ["ĠI", "'ll", "Ġwe", "Ġ", "Ġgo", "Ċ", "Ċ", "12345", "Ġx", "!!"]),
        (None, False, ["I'llĠweĠĠgoĊĊ12345Ġx!!"]),
    ],
)
def test_pieces_of_bytes(pattern: str | None, prefix_space: bool, expected: list[str]) -> None:
    classes = dict.fromkeys(string.ascii_letters, LETTER) | dict.fromkeys(string.digits, NUMBER)
    step = {"type": "byte_level", "prefix_space": prefix_space, "pattern": pattern}
    words = [*dict.fromkeys(expected)]
    made = bpe_tables([], words, ignore_merges=True, pre_tokenizer=[step], **characters(classes=classes))
    found = split(made, "I'll we  go\n\n12345 x!!")
    assert [words[token] for token in found] == expected


@pytest.mark.parametrize("text", ["a", "ab", "\0", "日"])
def test_time_is_bounded(text: str) -> None:
    doubled = [(i, i, i + 1) for i in range(3, 30)]
    made = kernels.Tokenizer(*bpe_tables([*MERGES, *doubled]))
    begin = time.process_time()
    made.tokenize([text * 250_000])
    assert time.process_time() - begin < 5


class TestDamagedTables:
    @pytest.mark.parametrize(
        ("merges", "expected"),
        [
            ([(1, 2, 1)], [1, 1]),  # a merge that makes one of its parts, again and again
            ([(1, 2, 3), (3, 3, 1), (1, 3, 2)], [1]),  # merges in a cycle
            ([(1, 2, 0xFFFFFFFF)], [0xFFFFFFFF] * 2),
        ],
    )
    def test_merges_of_any_tokens(self, merges: list[tuple[int, int, int]], expected: list[int]) -> None:
        assert kernels.Tokenizer(*bpe_tables(merges)).tokenize(["abab"])[0].tolist() == expected

    @pytest.mark.parametrize("rank", [1, 2, 99, 0xFFFFFFFF])
    @pytest.mark.parametrize("slots", [1, 2, 64, 4096])
    def test_an_index_without_an_empty_slot(self, rank: int, slots: int) -> None:
        full = np.full(slots, rank, np.uint32)
        ids = kernels.Tokenizer(*bpe_tables([(1, 2, 3)], merge_index=full)).tokenize(["ab" * 1000])[0]
        assert ids.tolist() == [3] * 1000 if rank == 1 else [1, 2] * 1000

    @pytest.mark.parametrize("name", ["token_merges", "merge_index"])
    @pytest.mark.parametrize("size", [0, 1, 7])
    def test_arrays_of_another_size(self, name: str, size: int) -> None:
        damaged = bpe_tables([(1, 2, 3)], **{name: np.ones(size, np.uint32)})
        if (name, size) in (("token_merges", 0), ("merge_index", 1)):
            assert kernels.Tokenizer(*damaged).tokenize(["ab"])[0].tolist() in ([1, 2], [3])
            return
        with pytest.raises(TokenizerError, match="expected three of each merge and a power of two"):
            kernels.Tokenizer(*damaged)
