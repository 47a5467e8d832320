"""The normalizers and pre-tokenizers of a ``tokenizer.json`` as steps of the native module."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError, shorten
from smallfry.text.settings import MAX_GROWTH, MAX_STEPS, growth

Step: TypeAlias = "dict[str, Any]"

_BY_CHARACTER = {"BertNormalizer", "Lowercase", "Nmt", "NFD", "NFKD", "StripAccents"}
_SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama3",
}


class NormalizerSteps(NamedTuple):
    """A normalizer, and what its steps look up."""

    steps: list[Step]
    by_character: list[Mapping[str, Any]]
    """The normalizers that are one step ``characters``."""
    charsmap: bytes | None
    """Of SentencePiece."""


def normalizer_steps(normalizer: Mapping[str, Any] | None) -> NormalizerSteps:
    """Return the steps of a normalizer in the form of ``tokenizers``.

    Raises
    ------
    InputError
        A part is not supported; the message names it.
    """
    steps: list[Step] = []
    by_character: list[Mapping[str, Any]] = []
    charsmap = None
    for part in _flat(normalizer, "normalizers"):
        kind = part["type"]
        if kind in _BY_CHARACTER:
            if not by_character:
                steps.append({"type": "characters"})
            elif steps[-1]["type"] != "characters":
                raise _unsupported("normalizer", kind, f" after {steps[-1]['type']!r}")
            by_character.append(part)
        elif kind == "Precompiled":
            if charsmap is not None:
                raise _unsupported("normalizer", kind, " after another")
            charsmap = _decode(part["precompiled_charsmap"])
            steps.append({"type": "charsmap"})
        elif kind == "Prepend" and part["prepend"]:
            steps.append({"type": "prepend", "content": part["prepend"]})
        elif kind == "Replace":
            steps.append(_replace(part))
        elif kind == "Strip":
            steps.append({"type": "strip", "left": part["strip_left"], "right": part["strip_right"]})
        else:
            raise _unsupported("normalizer", kind)
    if len(steps) > MAX_STEPS or any(len(step.get("pattern", "").encode()) > 1024 for step in steps):
        raise InputError(
            f"the tokenizer has more than {MAX_STEPS} normalizers, or one with a pattern of 1 KB."
        )
    if growth(steps) > MAX_GROWTH:
        raise InputError(
            f"the normalizers 'Replace' make a text up to {growth(steps):.0f} times as long, "
            f"expected at most {MAX_GROWTH} times."
        )
    return NormalizerSteps(steps, by_character, charsmap)


def pre_tokenizer_steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Step]:
    """Return the steps of a pre-tokenizer in the form of ``tokenizers``.

    Raises
    ------
    InputError
        A part is not supported; the message names it.
    """
    steps: list[Step] = []
    split = None
    for part in _flat(pre_tokenizer, "pretokenizers"):
        kind = part["type"]
        if split is not None and kind != "ByteLevel":
            raise _unsupported("pre-tokenizer", "Split", f" before {kind!r}")
        if kind == "BertPreTokenizer":
            steps.append({"type": "bert"})
        elif kind == "Whitespace":
            steps.append({"type": "whitespace"})
        elif kind == "WhitespaceSplit":
            steps.append({"type": "whitespace_split"})
        elif kind == "Punctuation" and part["behavior"] == "Isolated":
            steps.append({"type": "punctuation"})
        elif kind == "Metaspace":
            # "first" depends on the text before the normalizer.
            if part["prepend_scheme"] == "first" and steps:
                raise _unsupported("pre-tokenizer", kind, " with prepend_scheme='first' after another")
            steps.append(
                {
                    "type": "metaspace",
                    "replacement": part["replacement"],
                    "prepend": part["prepend_scheme"],
                    "split": part["split"],
                }
            )
        elif kind == "Split":
            split = _split(part)
        elif kind == "ByteLevel":
            if any(step["type"] == "byte_level" for step in steps):
                raise _unsupported("pre-tokenizer", kind, " after another")
            if split is not None and (part["use_regex"] or part["add_prefix_space"]):
                raise _unsupported("pre-tokenizer", kind, " with use_regex or add_prefix_space after 'Split'")
            pattern = "gpt2" if part["use_regex"] else split
            steps.append({"type": "byte_level", "prefix_space": part["add_prefix_space"], "pattern": pattern})
            split = None
        elif kind == "Punctuation":
            raise _unsupported("pre-tokenizer", kind, f" with behavior={part['behavior']!r}")
        else:
            raise _unsupported("pre-tokenizer", kind)
    if split is not None:
        raise _unsupported("pre-tokenizer", "Split", " without 'ByteLevel'")
    if len(steps) > MAX_STEPS:
        raise InputError(f"the tokenizer has {len(steps)} pre-tokenizers, expected at most {MAX_STEPS}.")
    return steps


def check_charsmaps(normalizer: Mapping[str, Any] | None) -> None:
    """Raise InputError if a part of a normalizer has a damaged charsmap."""
    for part in _flat(normalizer, "normalizers"):
        if part.get("type") == "Precompiled":
            _decode(part.get("precompiled_charsmap"))


def parse_charsmap(charsmap: bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the trie and the replacements of a charsmap of SentencePiece."""
    size = int.from_bytes(charsmap[:4], "little")
    return np.frombuffer(charsmap[4 : 4 + size], "<u4").astype(np.uint32), np.frombuffer(
        charsmap[4 + size :], np.uint8
    )


def _flat(part: Mapping[str, Any] | None, sequence: str) -> Iterator[Mapping[str, Any]]:
    if part is not None and part.get("type") == "Sequence":
        for inner in part[sequence]:
            yield from _flat(inner, sequence)
    elif part is not None:
        yield part


def _replace(part: Mapping[str, Any]) -> Step:
    pattern, content = part["pattern"], part["content"]
    if pattern.get("String"):
        return {"type": "replace", "pattern": pattern["String"], "content": content}
    if pattern.get("Regex") == " {2,}":
        return {"type": "replace_runs", "pattern": " ", "least": 2, "content": content}
    raise _unsupported("normalizer", "Replace", f" with pattern={shorten(pattern)}")


def _split(part: Mapping[str, Any]) -> str:
    pattern = _SPLITS.get(part["pattern"].get("Regex", ""))
    if pattern is None or part["behavior"] != "Isolated" or part["invert"]:
        raise _unsupported("pre-tokenizer", "Split", f" with pattern={shorten(part['pattern'])}")
    return pattern


def _decode(charsmap: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the bytes of a charsmap after checking the length that it declares."""
    try:
        data = base64.b64decode(charsmap, validate=True)
        data[4 + int.from_bytes(data[:4], "little") :].decode("utf-8")
    except (ValueError, TypeError, binascii.Error) as error:
        raise InputError(f"the charsmap of the normalizer 'Precompiled' is damaged: {error}.") from None
    size = int.from_bytes(data[:4], "little")
    if size == 0 or size % 4 or 4 + size > len(data):
        raise InputError(
            f"the charsmap of the normalizer 'Precompiled' declares a trie of {size:,} bytes "
            f"and has {len(data):,} bytes, expected a multiple of 4 that fits."
        )
    return data if data.endswith(b"\0") else data + b"\0"


def _unsupported(what: str, kind: str, how: str = "") -> InputError:
    return InputError(
        f"the {what} {kind!r}{how} is not supported: token ids could differ from those of the model."
    )
