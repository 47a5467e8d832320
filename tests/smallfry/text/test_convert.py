"""A ``tokenizer.json`` to the tensors of a text model: what is kept, and what is rejected by name."""

from __future__ import annotations

import base64
import copy
import json
import sys
from typing import Any

import numpy as np
import pytest

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.text import settings
from smallfry.text.convert import ConvertedTokenizer, convert

pytest.importorskip("tokenizers")

WORDPIECE: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {
            "id": 0,
            "content": "[UNK]",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "long": 3},
    },
}
UNIGRAM = WORDPIECE | {
    "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "byte_fallback": False,
        "vocab": [["[UNK]", 0.0], ["a", -1.1], ["▁b", -2.25]],
    },
}
BPE = WORDPIECE | {
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {"[UNK]": 0, "a": 1, "b": 2, "ab": 3},
        "merges": ["a b"],
    },
}


# Maps ℡, U+2121, to TEL: a trie with the one key.
CHARSMAP = base64.b64encode(
    (lambda units: units.nbytes.to_bytes(4, "little") + units.tobytes())(
        kernels.build_trie("℡".encode(), np.array([0, 3], np.uint64), np.zeros(1, np.uint32))
    )
    + b"TEL\0"
).decode()


def convert_json(tokenizer: object) -> ConvertedTokenizer:
    return convert(json.dumps(tokenizer).encode())


def changed(tokenizer: dict[str, Any], *path: str | int, to: object) -> dict[str, Any]:
    """Return a copy with another value at a path of keys."""
    tokenizer = copy.deepcopy(tokenizer)
    target: Any = tokenizer
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = to
    return tokenizer


def parsed(converted: ConvertedTokenizer) -> dict[str, Any]:
    return settings.parse(converted.tensors.tokenizer.tobytes(), len(converted.tokens))


def test_wordpiece() -> None:
    converted = convert_json(WORDPIECE)
    assert converted.tokens == ["[UNK]", "a", "##b", "long"]
    assert (converted.unknown, converted.max_length, converted.median_length) == (0, 128, 3)
    assert parsed(converted) == {
        "model": {"type": "wordpiece", "unknown": 0, "prefix": "##", "max_characters": 100},
        "normalizer": [{"type": "characters"}],
        "pre_tokenizer": [{"type": "bert"}],
        "added": [
            {
                "id": 0,
                "content": "[UNK]",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
    }
    keys = b"a##bmissing"
    found = kernels.find_in_trie(converted.tensors.token_trie, keys, np.array([0, 1, 4, 11], np.uint64))
    assert found.tolist() == [1, 2, 0xFFFFFFFF]


def test_unigram() -> None:
    converted = convert_json(UNIGRAM)
    assert converted.unknown == 0
    assert parsed(converted) | {"added": []} == {
        "model": {"type": "unigram", "unknown": 0, "byte_fallback": False},
        "normalizer": [{"type": "replace_runs", "pattern": " ", "least": 2, "content": " "}],
        "pre_tokenizer": [{"type": "metaspace", "replacement": "▁", "prepend": "first", "split": False}],
        "added": [],
    }
    assert converted.tensors.token_scores is not None
    assert converted.tensors.token_scores.tolist() == [0.0, -1.1, -2.25]


def test_bpe() -> None:
    converted = convert_json(BPE)
    assert parsed(converted) | {"added": []} == {
        "model": {
            "type": "bpe",
            "unknown": 0,
            "fuse_unknown": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
        "normalizer": [],
        "pre_tokenizer": [{"type": "byte_level", "prefix_space": False, "pattern": "gpt2"}],
        "added": [],
    }
    assert converted.tensors.token_merges is not None
    assert converted.tensors.token_merges.tolist() == [[1, 2, 3]]


def test_llama3_split() -> None:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split, level]}
    assert parsed(convert_json(changed(BPE, "pre_tokenizer", to=steps)))["pre_tokenizer"] == [
        {"type": "byte_level", "prefix_space": False, "pattern": "llama3"}
    ]


def test_consecutive_normalizers_of_characters_are_one_step() -> None:
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFD"},
            {"type": "Sequence", "normalizers": [{"type": "StripAccents"}, {"type": "Lowercase"}]},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ],
    }
    converted = convert_json(changed(WORDPIECE, "normalizer", to=normalizer))
    assert parsed(converted)["normalizer"] == [
        {"type": "characters"},
        {"type": "strip", "left": True, "right": True},
    ]


def test_tokens_added_after_the_vocabulary() -> None:
    added = WORDPIECE["added_tokens"][0] | {"id": 3, "content": "Ünder", "normalized": True}
    normalizer = WORDPIECE["normalizer"] | {"strip_accents": False}
    converted = convert_json(UNIGRAM | {"added_tokens": [added], "normalizer": normalizer})
    assert converted.tokens == ["[UNK]", "a", "▁b", "Ünder"]
    assert [(t["id"], t["content"]) for t in parsed(converted)["added"]] == [(3, "ünder")]
    assert converted.tensors.token_scores is not None
    assert converted.tensors.token_scores.min() == -2.25
    assert len(converted.tensors.token_scores) == 4


REJECTED: list[tuple[str, dict[str, Any], str]] = [
    ("no tokenizer", {"version": "1.0"}, "is not a tokenizer"),
    ("an old version", WORDPIECE | {"version": "0.1"}, "Unknown tokenizer version"),
    (
        "another model",
        WORDPIECE | {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0}}},
        "'WordLevel'",
    ),
    (
        "a hole in the ids",
        changed(WORDPIECE, "model", "vocab", "long", to=4),
        "'long' has the id 4, expected 3",
    ),
    ("an id twice", changed(WORDPIECE, "model", "vocab", "long", to=2), "has the id 2, expected 3"),
    ("NUL in a token", changed(WORDPIECE, "model", "vocab", "\0", to=4), "NUL"),
    ("a long token", changed(WORDPIECE, "model", "vocab", "x" * 1025, to=4), "1025 bytes"),
    ("no unknown token", changed(WORDPIECE, "model", "unk_token", to="<unk>"), "'<unk>' is not in the"),
    (
        "no limit for words",
        changed(WORDPIECE, "model", "max_input_chars_per_word", to=10**9),
        "max_input_chars_per_word is 1,000,000,000",
    ),
    ("a token twice", changed(UNIGRAM, "model", "vocab", 2, to=["a", -3.0]), "'a', which occurs twice"),
    ("no unk_id", changed(UNIGRAM, "model", "unk_id", to=None), "unk_id"),
    ("dropout", changed(BPE, "model", "dropout", to=0.5), "dropout=0.5"),
    (
        "a prefix",
        changed(changed(BPE, "model", "merges", to=[]), "model", "continuing_subword_prefix", to="##"),
        "continuing_subword_prefix='##'",
    ),
    ("a suffix", changed(BPE, "model", "end_of_word_suffix", to="</w>"), "end_of_word_suffix='</w>'"),
    ("bytes without BPE", changed(WORDPIECE, "pre_tokenizer", to=BPE["pre_tokenizer"]), "'ByteLevel'"),
    (
        "bytes twice",
        changed(BPE, "pre_tokenizer", to={"type": "Sequence", "pretokenizers": [BPE["pre_tokenizer"]] * 2}),
        "'ByteLevel' after another",
    ),
    ("sorted bytes", BPE | {"normalizer": {"type": "NFD"}}, "sorts combining marks"),
    (
        "sorted marks",
        changed(WORDPIECE, "normalizer", to={"type": "NFD"})
        | {"model": WORDPIECE["model"] | {"vocab": {"[UNK]": 0, "a\u0301": 1}}},
        r"U\+0301",
    ),
    ("a composition", WORDPIECE | {"normalizer": {"type": "NFKC"}}, "the normalizer 'NFKC'"),
    ("bytes", WORDPIECE | {"normalizer": {"type": "ByteLevel"}}, "the normalizer 'ByteLevel'"),
    (
        "a regular expression",
        changed(UNIGRAM, "normalizer", "pattern", to={"Regex": r"\s+"}),
        r"'Replace' with pattern=\{'Regex'",
    ),
    (
        "growth",
        changed(
            UNIGRAM, "normalizer", to={"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 65}
        ),
        "65 times",
    ),
    (
        "characters twice",
        WORDPIECE
        | {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "NFD"},
                    {"type": "Strip", "strip_left": True, "strip_right": True},
                    {"type": "Lowercase"},
                ],
            }
        },
        "'Lowercase' after 'strip'",
    ),
    (
        "a damaged charsmap",
        WORDPIECE | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAA"}},
        "charsmap",
    ),
    (
        "a short charsmap",
        WORDPIECE
        | {
            "normalizer": {
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(b"\x08\0\0\0abcd").decode(),
            }
        },
        "declares a trie of 8 bytes",
    ),
    ("digits", WORDPIECE | {"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, "'Digits'"),
    (
        "merged punctuation",
        WORDPIECE | {"pre_tokenizer": {"type": "Punctuation", "behavior": "Removed"}},
        "behavior='Removed'",
    ),
    (
        "a split",
        WORDPIECE
        | {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        "'Split' with pattern",
    ),
    (
        "Metaspace first after another",
        changed(
            UNIGRAM,
            "pre_tokenizer",
            to={
                "type": "Sequence",
                "pretokenizers": [{"type": "WhitespaceSplit"}, UNIGRAM["pre_tokenizer"]],
            },
        ),
        "'Metaspace' with prepend_scheme='first' after another",
    ),
    (
        "Metaspace first after a changed start",
        changed(UNIGRAM, "normalizer", to={"type": "Strip", "strip_left": True, "strip_right": True}),
        "after the normalizer 'Strip'",
    ),
    (
        "Metaspace first after a decomposition",
        UNIGRAM | {"normalizer": {"type": "NFKD"}},
        "after a normalizer that decomposes",
    ),
    (
        "Metaspace first with an added token inside of a character",
        UNIGRAM
        | {
            "normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
            "added_tokens": [WORDPIECE["added_tokens"][0] | {"id": 3, "content": "TE", "normalized": True}],
        },
        "the added token 'TE'",
    ),
    (
        "too many steps",
        WORDPIECE | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 17}},
        "has 17 pre-tokenizers",
    ),
    (
        "a long pattern",
        changed(UNIGRAM, "normalizer", "pattern", to={"String": "x" * 1025}),
        "a pattern of 1 KB",
    ),
    ("truncation at the start", changed(WORDPIECE, "truncation", "direction", to="Left"), "direction='Left'"),
    ("truncation of pairs", changed(WORDPIECE, "truncation", "strategy", to="OnlySecond"), "'OnlySecond'"),
    ("truncation to nothing", changed(WORDPIECE, "truncation", "max_length", to=0), "max_length=0"),
    (
        "an empty added token",
        WORDPIECE
        | {
            "added_tokens": [
                WORDPIECE["added_tokens"][0] | {"id": 4, "content": "\u0301", "normalized": True}
            ]
        },
        "is '' after normalization",
    ),
    (
        "two added tokens that are equal",
        WORDPIECE
        | {
            "added_tokens": [
                WORDPIECE["added_tokens"][0] | {"id": 4 + i, "content": content, "normalized": True}
                for i, content in enumerate("Xx")
            ]
        },
        "is 'x' after normalization",
    ),
]


@pytest.mark.parametrize(("tokenizer", "message"), [pytest.param(t, m, id=name) for name, t, m in REJECTED])
def test_rejected(tokenizer: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert_json(tokenizer)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b'{"normalizer": 1}'])
def test_no_json_of_a_tokenizer(data: bytes) -> None:
    with pytest.raises(InputError, match="is not a tokenizer"):
        convert(data)


def test_without_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"smallfry\[text\]"):
        convert_json(WORDPIECE)
