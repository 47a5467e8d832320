"""Tables of small tokenizers, made by hand."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels

SPACE, PUNCTUATION, WORD = 1, 2, 4
JOINS_PREVIOUS, SPACED = 32, 256

Tables = tuple[dict[str, Any], dict[str, NDArray[Any]]]


def trie(vocabulary: Mapping[str, int]) -> NDArray[np.uint32]:
    """Return the trie from the UTF-8 of each token to its id."""
    keys = [token.encode() for token in vocabulary]
    offsets = np.cumsum([0, *map(len, keys)], dtype=np.int64)
    units: NDArray[np.uint32] = kernels.build_trie(
        np.frombuffer(b"".join(keys), np.uint8), offsets, np.array([*vocabulary.values()], np.uint32)
    )
    return units


def characters(
    replacements: Mapping[str, str] | None = None, classes: Mapping[str, int] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the table of characters; those of ASCII and U+2581 have their classes."""
    entries = np.zeros(0x110000, np.uint32)
    for flag, members in (
        (SPACE, string.whitespace + "\u3000"),
        (PUNCTUATION, string.punctuation),
        (WORD, string.ascii_letters + string.digits + "_éß日本"),
    ):
        entries[[ord(character) for character in members]] |= flag
    for character, flag in (classes or {}).items():
        entries[ord(character)] |= flag
    text = bytearray()
    for character, replacement in (replacements or {}).items():
        entries[ord(character)] |= (1 + len(text)) << 12
        encoded = replacement.encode()
        text += bytes([len(encoded)]) + encoded
    blocks: dict[bytes, int] = {}
    numbers = [blocks.setdefault(block.tobytes(), len(blocks)) for block in entries.reshape(-1, 256)]
    return {
        "character_blocks": np.array(numbers, np.uint16),
        "characters": np.frombuffer(b"".join(blocks), np.uint32),
        "character_text": np.frombuffer(bytes(text), np.uint8),
    }


def tables(
    model: dict[str, Any],
    vocabulary: Mapping[str, int],
    *,
    normalizer: Sequence[dict[str, Any]] = (),
    pre_tokenizer: Sequence[dict[str, Any]] = (),
    added: Sequence[dict[str, Any]] = (),
    **tensors: NDArray[Any],
) -> Tables:
    """Return the settings and the tensors of a tokenizer."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    settings = {
        "model": model,
        "normalizer": list(normalizer),
        "pre_tokenizer": list(pre_tokenizer),
        "added": [plain | token for token in added],
    }
    return settings, characters() | {"token_trie": trie(vocabulary)} | tensors


def wordpiece_tables(words: Sequence[str], **options: Any) -> Tables:
    """Return a WordPiece tokenizer that splits as BERT's; the first word is the unknown token."""
    model = {"type": "wordpiece", "unknown": 0, "prefix": "##", "max_characters": 100}
    vocabulary = {word: number for number, word in enumerate(words)}
    return tables(model, vocabulary, **{"pre_tokenizer": [{"type": "bert"}]} | options)


def unigram_tables(
    scores: Mapping[str, float],
    unknown: int | None = 0,
    *,
    byte_fallback: bool = False,
    **options: Any,
) -> Tables:
    """Return a Unigram tokenizer without steps before it."""
    model = {"type": "unigram", "unknown": unknown, "byte_fallback": byte_fallback}
    vocabulary = {token: number for number, token in enumerate(scores)}
    return tables(model, vocabulary, token_scores=np.array([*scores.values()], np.float64), **options)
