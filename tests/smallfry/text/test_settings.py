"""The settings of a tokenizer: what is written is read, and anything else is rejected by name."""

import copy
import json
from typing import Any

import pytest

from smallfry.errors import InputError, TokenizerError
from smallfry.text.settings import MAX_SETTINGS, parse, serialize

SETTINGS: dict[str, Any] = {
    "model": {"type": "wordpiece", "unknown": 1, "prefix": "##", "max_characters": 100},
    "normalizer": [
        {"type": "characters"},
        {"type": "charsmap"},
        {"type": "prepend", "content": "▁"},
        {"type": "replace", "pattern": " ", "content": "▁"},
        {"type": "replace_runs", "pattern": " ", "least": 2, "content": " "},
        {"type": "strip", "left": True, "right": False},
    ],
    "pre_tokenizer": [
        {"type": "bert"},
        {"type": "whitespace"},
        {"type": "whitespace_split"},
        {"type": "punctuation"},
        {"type": "metaspace", "replacement": "▁", "prepend": "first", "split": False},
        {"type": "byte_level", "prefix_space": False, "pattern": None},
    ],
    "added": [
        {
            "id": 0,
            "content": "[PAD]",
            "single_word": False,
            "lstrip": True,
            "rstrip": False,
            "normalized": False,
        }
    ],
}


@pytest.mark.parametrize(
    "model",
    [
        SETTINGS["model"],
        {"type": "unigram", "unknown": 3, "byte_fallback": False},
        {"type": "bpe", "unknown": None, "fuse_unknown": True, "byte_fallback": True, "ignore_merges": False},
    ],
    ids=lambda model: model["type"],
)
def test_round_trip(model: dict[str, Any]) -> None:
    settings = SETTINGS | {"model": model}
    assert parse(serialize(settings).tobytes(), 4) == settings


CHANGES: list[tuple[str, list[str | int], Any]] = [
    ("unknown beyond the tokens", ["model", "unknown"], 4),
    ("negative unknown", ["model", "unknown"], -1),
    ("unknown of another type", ["model", "unknown"], True),
    ("no unknown", ["model", "unknown"], None),
    ("another model", ["model", "type"], "wordlevel"),
    ("a type that is not a string", ["model", "type"], ["wordpiece"]),
    ("a model that is a list", ["model"], []),
    ("words of no characters", ["model", "max_characters"], 0),
    ("an unknown key", ["model", "dropout"], 0.1),
    ("a normalizer that is not a list", ["normalizer"], {}),
    ("another normalizer", ["normalizer", 0, "type"], "nfc"),
    ("a step that is not an object", ["normalizer", 0], None),
    ("an empty pattern", ["normalizer", 3, "pattern"], ""),
    ("runs of two characters", ["normalizer", 4, "pattern"], "  "),
    ("growth without bound", ["normalizer", 3, "content"], "x" * 65),
    ("too many steps", ["pre_tokenizer"], [{"type": "bert"}] * 17),
    (
        "bytes mapped twice",
        ["pre_tokenizer"],
        [{"type": "byte_level", "prefix_space": False, "pattern": None}] * 2,
    ),
    ("a flag that is a number", ["normalizer", 5, "left"], 1),
    ("another pre-tokenizer", ["pre_tokenizer", 0, "type"], "digits"),
    ("another prepend scheme", ["pre_tokenizer", 4, "prepend"], "last"),
    ("an unhashable prepend scheme", ["pre_tokenizer", 4, "prepend"], ["first"]),
    ("another pattern", ["pre_tokenizer", 5, "pattern"], "gpt4"),
    ("an added id beyond the tokens", ["added", 0, "id"], 4),
    ("an empty added token", ["added", 0, "content"], ""),
    ("an added token twice", ["added"], SETTINGS["added"] * 2),
    ("a key more", ["version"], 1),
]


@pytest.mark.parametrize(("path", "value"), [pytest.param(p, v, id=name) for name, p, v in CHANGES])
def test_rejects(path: list[str | int], value: object) -> None:
    settings: Any = copy.deepcopy(SETTINGS)
    target = settings
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(TokenizerError, match="tensor 'tokenizer' has"):
        parse(json.dumps(settings).encode(), 4)


@pytest.mark.parametrize("key", ["model", "normalizer", "pre_tokenizer", "added"])
def test_rejects_a_missing_key(key: str) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != key}
    with pytest.raises(TokenizerError, match="keys"):
        parse(json.dumps(settings).encode(), 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"model": NaN}',
        b'{"model": 1, "model": 1}',
        b'{"model": ' + b"1" * 5000 + b"}",
        json.dumps(SETTINGS).replace("[PAD]", "\\ud800").encode(),
        b" " * (MAX_SETTINGS + 1),
    ],
    ids=["empty", "cut", "no UTF-8", "deep", "NaN", "key twice", "long number", "surrogate", "too long"],
)
def test_rejects_json(data: bytes) -> None:
    with pytest.raises(TokenizerError, match="tensor 'tokenizer'"):
        parse(data, 4)


def test_too_many_added_tokens() -> None:
    with pytest.raises(InputError, match="at most 16,777,216"):
        serialize({"added": ["x" * MAX_SETTINGS]})
