"""Token ids of small tokenizers against those of the ``tokenizers`` package, on random texts."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry import kernels

pytest.importorskip("tokenizers")

from benchmarks.text import trained
from benchmarks.text.equality import Comparison, variants
from benchmarks.text.strings import COMPATIBLE, SPACES, random_texts

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8").splitlines()
TEXTS = 1500


def charsmap() -> str:
    """Return a map as SentencePiece's NFKC of some characters, letters with an accent, and line ends."""
    mapped = {c: unicodedata.normalize("NFKC", c) for c in COMPATIBLE}
    mapped |= dict.fromkeys([*SPACES, "\u200d", "\r\n"], " ")
    mapped |= {c + "\u0301": unicodedata.normalize("NFC", c + "\u0301") for c in "aeiou"}
    mapped |= {"\u2122": "TM", "\u3297": "祝", "\u0958": "\u0915\u093c", "\u200b": ""}
    keys = [key.encode() for key in mapped]
    text, values = b"", []
    for value in mapped.values():
        values.append(len(text))
        text += value.encode() + b"\0"
    offsets = np.cumsum([0, *map(len, keys)], dtype=np.uint64)
    units = kernels.build_trie(b"".join(keys), offsets, np.array(values, np.uint32))
    return base64.b64encode(units.nbytes.to_bytes(4, "little") + units.tobytes() + text).decode()


def wordpiece() -> dict[str, Any]:
    return trained.wordpiece(README, 600)


def unigram() -> dict[str, Any]:
    normalizer = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    return trained.unigram(README, 400) | {"normalizer": normalizer}


def byte_level() -> dict[str, Any]:
    return trained.byte_level(README, 500)


def byte_fallback() -> dict[str, Any]:
    """Return a tokenizer as that of Llama 2."""
    content = trained.byte_level(README, 500)
    vocabulary = [token.replace("Ġ", "▁") for token in content["model"]["vocab"]]
    known = {token for token in vocabulary if token.isascii() or "▁" in token}
    merges = [[part.replace("Ġ", "▁") for part in merge] for merge in content["model"]["merges"]]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(known)]
    model = {
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [[a, b] for a, b in merges if {a, b, a + b} <= known],
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return content | {
        "model": content["model"] | model,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": None,
        "added_tokens": [],
    }


@pytest.mark.parametrize("make", [wordpiece, unigram, byte_level, byte_fallback])
def test_ids_are_equal(make: Callable[[], dict[str, Any]]) -> None:
    for name, content in variants(make()).items():
        comparison = Comparison(content)
        texts = [*README, "", *random_texts(TEXTS, comparison.added, comparison.tokens, seed=1)]
        assert next(comparison.differences(texts), None) is None, name
