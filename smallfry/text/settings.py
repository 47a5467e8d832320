"""The settings of a tokenizer: the JSON of the tensor ``tokenizer``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError, TokenizerError, shorten
from smallfry.sfq.safetensors import decode_json
from smallfry.text.model import TextModel

MAX_SETTINGS = 1 << 24
"""Limit for the JSON, in bytes; a thousand added tokens take about 0.1 MB."""

MAX_STEPS = 16
"""Limit for the steps of a normalizer, and of a pre-tokenizer."""

MAX_GROWTH = 16
"""Limit for the bytes that replacing normalizers make of one."""

MAX_WORD = 1 << 20


def serialize(settings: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the tensor ``tokenizer``, uint8 ``[bytes]``.

    Raises
    ------
    InputError
        The JSON is longer than `MAX_SETTINGS`.
    """
    text = json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > MAX_SETTINGS:
        raise InputError(
            f"the settings of the tokenizer take {len(text):,} bytes, expected at most {MAX_SETTINGS:,}. "
            "Please remove added tokens."
        )
    return np.frombuffer(text, np.uint8)


def parse(data: bytes, tokens: int) -> dict[str, Any]:
    """Return the settings after checking every key, type and range.

    Parameters
    ----------
    data : bytes
        The tensor ``tokenizer``.
    tokens : int
        Number of token ids.

    Raises
    ------
    TokenizerError
        The JSON is malformed, too long, or has a missing, unknown or invalid key.
    """
    if len(data) > MAX_SETTINGS:
        raise TokenizerError(
            f"tensor 'tokenizer' has {len(data):,} bytes, expected at most {MAX_SETTINGS:,}. "
            "The file is damaged."
        )
    try:
        settings = decode_json(data)
    except (ValueError, RecursionError) as invalid:
        raise _error(f"is not valid JSON: {str(invalid) or type(invalid).__name__}") from None
    return _check_settings(settings, tokens)


def load(text: TextModel) -> dict[str, Any]:
    """Return the settings of a text model after checking them, and its tensors against them.

    Raises
    ------
    TokenizerError
        See `parse`; or a tensor is missing, or belongs to another type of tokenizer.
    """
    settings = parse(text.tensors.tokenizer.tobytes(), text.pooling.tokens)
    kind = settings["model"]["type"]
    uses = {
        "token_scores": kind == "unigram",
        "token_merges": kind == "bpe",
        "merge_index": kind == "bpe",
        "charsmap": any(step["type"] == "charsmap" for step in settings["normalizer"]),
    }
    present = text.present()
    for name, used in uses.items():
        if used and name not in present:
            raise _error(f"is of type {kind}, and the tensor {name!r}, which it needs, is missing")
        if name in present and not used:
            raise _error(f"is of type {kind}, which does not use the tensor {name!r}")
    return settings


def growth(normalizer: Sequence[Mapping[str, Any]]) -> float:
    """Return how many bytes the replacing steps of a normalizer make of one at most."""
    longest = 1.0
    for step in normalizer:
        if "pattern" in step:
            longest *= max(1.0, len(step["content"].encode()) / len(step["pattern"].encode()))
        elif "content" in step:
            longest += len(step["content"].encode())
    return longest


class _Check(NamedTuple):
    """What the value of a key must be."""

    expected: str
    holds: Callable[[Any], bool]


def _is_int(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _one_of(*values: object) -> _Check:
    expected = f"one of {', '.join(map(json.dumps, values))}"
    return _Check(expected, lambda value: type(value) in map(type, values) and value in values)


_FLAG = _Check("true or false", lambda value: type(value) is bool)
_TEXT = _Check("a string", lambda value: type(value) is str)
_CONTENT = _Check("a string that is not empty", lambda value: type(value) is str and value != "")
_CHARACTER = _Check("a string of one character", lambda value: type(value) is str and len(value) == 1)
_COUNT = _Check(f"an integer from 1 to {MAX_WORD:,}", lambda value: _is_int(value, 1, MAX_WORD))

_NORMALIZERS: dict[str, dict[str, _Check]] = {
    "characters": {},
    "charsmap": {},
    "prepend": {"content": _CONTENT},
    "replace": {"pattern": _CONTENT, "content": _TEXT},
    "replace_runs": {"pattern": _CHARACTER, "least": _COUNT, "content": _TEXT},
    "strip": {"left": _FLAG, "right": _FLAG},
}
_PRE_TOKENIZERS: dict[str, dict[str, _Check]] = {
    "bert": {},
    "whitespace": {},
    "whitespace_split": {},
    "punctuation": {},
    "metaspace": {"replacement": _CHARACTER, "prepend": _one_of("always", "first", "never"), "split": _FLAG},
    "byte_level": {"prefix_space": _FLAG, "pattern": _one_of("gpt2", "llama3", None)},
}


def _models(token_id: _Check) -> dict[str, dict[str, _Check]]:
    token_id_or_null = _Check(f"{token_id.expected}, or null", lambda v: v is None or token_id.holds(v))
    return {
        "wordpiece": {"unknown": token_id, "prefix": _TEXT, "max_characters": _COUNT},
        "unigram": {"unknown": token_id, "byte_fallback": _FLAG},
        "bpe": {
            "unknown": token_id_or_null,
            "fuse_unknown": _FLAG,
            "byte_fallback": _FLAG,
            "ignore_merges": _FLAG,
        },
    }


def _check_settings(settings: Any, tokens: int) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    token_id = _Check(f"a token id below {tokens:,}", lambda value: _is_int(value, 0, tokens - 1))
    added = {
        "id": token_id,
        "content": _CONTENT,
        "single_word": _FLAG,
        "lstrip": _FLAG,
        "rstrip": _FLAG,
        "normalized": _FLAG,
    }
    steps = _Check(
        f"a list of at most {MAX_STEPS}", lambda value: type(value) is list and len(value) <= MAX_STEPS
    )
    tokens_added = _Check("a list", lambda value: type(value) is list)
    model = _Check("an object", lambda value: type(value) is dict)
    _check_keys(
        settings,
        {"model": model, "normalizer": steps, "pre_tokenizer": steps, "added": tokens_added},
        "settings",
    )
    _check_variant(settings["model"], _models(token_id), "model")
    for number, step in enumerate(settings["normalizer"]):
        _check_variant(step, _NORMALIZERS, f"normalizer[{number}]")
    if growth(settings["normalizer"]) > MAX_GROWTH:
        raise _error(f"has normalizers that make a text more than {MAX_GROWTH} times as long")
    for number, step in enumerate(settings["pre_tokenizer"]):
        _check_variant(step, _PRE_TOKENIZERS, f"pre_tokenizer[{number}]")
    if sum(step["type"] == "byte_level" for step in settings["pre_tokenizer"]) > 1:
        raise _error("has more than one pre-tokenizer 'byte_level', each of which can double a text")
    for number, token in enumerate(settings["added"]):
        _check_keys(token, added, f"added[{number}]")
    contents = [(token["content"], token["normalized"]) for token in settings["added"]]
    if len({*contents}) < len(contents):
        raise _error("has an added token twice")
    return dict(settings)


def _check_variant(value: Any, variants: Mapping[str, Mapping[str, _Check]], where: str) -> None:  # noqa: ANN401
    kind = value.get("type") if type(value) is dict else None
    if type(kind) is not str or kind not in variants:
        raise _error(f"has {where} of type {shorten(kind)}, expected one of {', '.join(variants)}")
    _check_keys(value, {"type": _TEXT, **variants[kind]}, where)


def _check_keys(value: Any, keys: Mapping[str, _Check], where: str) -> None:  # noqa: ANN401 - any JSON value
    if type(value) is not dict or value.keys() != keys.keys():
        found = ", ".join(value) if type(value) is dict else type(value).__name__
        raise _error(f"has {where} with the keys {shorten(found)}, expected {', '.join(keys)}")
    for key, check in keys.items():
        if not check.holds(value[key]):
            raise _error(f"has {where}.{key} = {shorten(value[key])}, expected {check.expected}")


def _error(reason: str) -> TokenizerError:
    return TokenizerError(
        f"tensor 'tokenizer' {reason}. The file is damaged; please compress the model again."
    )
