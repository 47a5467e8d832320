"""The tokens of byte pair encoding are those of the ``tokenizers`` package."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.text import settings as text_settings
from smallfry.text.convert import convert

tokenizers = pytest.importorskip("tokenizers")

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
#: Of each class that the patterns of GPT-2 and Llama 3 know, and of those that they treat alike.
CHARACTERS = "abzZéß日ſ12²Ⅷ١'sStTmMdDrReEvVlL \t\n\r\x85\xa0\u2028\u3000.,!_-\u0301\u200d😀\0\x7f"


def tokenizer(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    options = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {
        "version": "1.0",
        "added_tokens": [],
        **empty,
        "model": {"type": "BPE", "dropout": None, **options, **model},
    } | parts


def native(content: dict[str, Any]) -> Any:
    converted = convert(json.dumps(content).encode())
    tensors = {name: array for name, array in converted.tensors._asdict().items() if array is not None}
    parsed = text_settings.parse(converted.tensors.tokenizer.tobytes(), len(converted.tokens))
    return kernels.Tokenizer(parsed, tensors)


def check(content: dict[str, Any], texts: list[str]) -> None:
    reference = tokenizers.Tokenizer.from_str(json.dumps(content))
    ids, offsets = native(content).tokenize(texts)
    for i, text in enumerate(texts):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == reference.encode(text).ids, text


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a model of few letters, in which several merges may make the same token, in any order."""
    tokens = ["<unk>", *draw(st.sampled_from(["ab", "abc", "aé日", "▁a", "▁ab"]))]
    letters, merges = tokens[1:], []
    known = [*letters]
    for _ in range(draw(st.integers(0, 12))):
        left, right = draw(st.sampled_from(known)), draw(st.sampled_from(known))
        if [left, right] not in merges and len(left + right) < 9:
            merges.append([left, right])
            known += [left + right] * (left + right not in known)
    tokens += known[len(letters) :]
    tokens += draw(st.sampled_from([[], BYTES, BYTES[:0x90], ["<0xC3>", "<0x63>"]]))
    return {
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": draw(st.permutations(merges)),
        "unk_token": draw(st.sampled_from([None, "<unk>"])),
        "fuse_unk": draw(st.booleans()),
        "byte_fallback": draw(st.booleans()),
        "ignore_merges": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=80)
@given(models(), st.lists(st.text("aabbcé日ü\0▁▁▁", max_size=40), min_size=1, max_size=8))
def test_tokens_of_any_model(model: dict[str, Any], texts: list[str]) -> None:
    check(tokenizer(model), texts)


@pytest.mark.parametrize("fuse_unk", [False, True])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_texts_as_one_word(fuse_unk: bool, byte_fallback: bool) -> None:
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    words = ["<unk>", *BYTES, "▁", "a", "b", "▁a", "ab", "▁▁", "▁ab"]
    model = {
        "vocab": {word: number for number, word in enumerate(words)},
        "merges": ["▁ a", "a b", "▁ ▁", "▁ ab", "▁a b"],
        "unk_token": "<unk>",
        "fuse_unk": fuse_unk,
        "byte_fallback": byte_fallback,
    }
    content = tokenizer(model, normalizer={"type": "Sequence", "normalizers": steps})
    check(content, ["ab ab", " a", "   ab  b", "", " ", "日本 ab é", "a\0b", "xx<0x00>", "😀 " * 3])


def all_pairs(**options: Any) -> dict[str, Any]:
    """Return a model that merges any two bytes of `CHARACTERS` and a space."""
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    encode = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    used = sorted({*encode(CHARACTERS + " ")[0][0]})
    tokens = [*sorted(alphabet), *(left + right for left in used for right in used)]
    return {
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [[left, right] for left in used for right in used],
    } | options


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(**options: Any) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True} | options


STEPS = {
    "gpt2": byte_level(),
    "gpt2 with a prefix": byte_level(add_prefix_space=True),
    "whole": byte_level(use_regex=False),
    "llama3": {"type": "Sequence", "pretokenizers": [split(LLAMA3), byte_level(use_regex=False)]},
}
ADDED = {
    "id": 0,
    "content": "<s>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


@pytest.fixture(scope="module", params=STEPS)
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Return a byte-level tokenizer in the native module and in the package.

    Pairs are tokens, so that an odd number of bytes shows where a piece ends.
    """
    content = tokenizer(all_pairs(), pre_tokenizer=STEPS[request.param], added_tokens=[ADDED])
    return native(content), tokenizers.Tokenizer.from_str(json.dumps(content))


class TestByteLevel:
    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.lists(st.sampled_from([*CHARACTERS, "<s>", "'ll", "  "]), max_size=12).map("".join)))
    def test_texts_are_split_by_the_pattern(self, both: tuple[Any, Any], texts: list[str]) -> None:
        ids, offsets = both[0].tokenize(texts)
        expected = [encoding.ids for encoding in both[1].encode_batch(texts)]
        assert [part.tolist() for part in np.split(ids, offsets[1:-1])][: len(texts)] == expected

    @pytest.mark.parametrize(
        "text",
        [
            "I'll we'VE don't 's ''s 'ſ x'RE",
            "1234567 12 3٣٣٣٣",
            "a  b   c \n\n d\r\n  e \t",
            "a!!\n\n?\r\n.\n b.!",
            "\u2028 \u3000a\xa0b\x85",
        ],
    )
    def test_texts_with_known_pitfalls(self, both: tuple[Any, Any], text: str) -> None:
        assert both[0].tokenize([text])[0].tolist() == both[1].encode(text).ids
