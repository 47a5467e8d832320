"""Graphemes of the native module against those of the ``tokenizers`` package."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from benchmarks.text import strings
from smallfry import kernels
from smallfry.text import settings
from smallfry.text.characters import character_table, first_byte_map

normalizers = pytest.importorskip("tokenizers.normalizers")

LONGEST = 100
SETTINGS = {
    "model": {"type": "wordpiece", "unknown": 0, "prefix": "##", "max_characters": LONGEST},
    "normalizer": [{"type": "charsmap"}],
    "pre_tokenizer": [],
    "added": [],
}


def test_number_of_graphemes() -> None:
    """Each text becomes as many ``x`` as it has small graphemes and characters of others."""
    charsmap = first_byte_map()
    size = 4 + int.from_bytes(charsmap[:4], "little")
    table = character_table(None)
    tokens = "".join("x" * length for length in range(1, LONGEST)).encode()
    offsets = np.cumsum(np.arange(LONGEST), dtype=np.uint64)
    tokenizer = kernels.Tokenizer(
        SETTINGS,
        {
            "tokenizer": settings.serialize(SETTINGS),
            "token_trie": kernels.build_trie(tokens, offsets, np.arange(1, LONGEST, dtype=np.uint32)),
            "character_blocks": table.blocks,
            "characters": table.entries,
            "character_text": table.text,
            "charsmap": np.frombuffer(charsmap[4:size], np.uint32),
            "charsmap_text": np.frombuffer(charsmap[size:], np.uint8),
        },
    )
    rng = Random(0)
    draws = [
        strings.latin,
        strings.indic,
        strings.hangul,
        strings.pictograph,
        strings.mark,
        strings.invisible,
        strings.basic,
        strings.character,
        lambda rng: rng.choice(strings.PREPENDED),
        lambda rng: rng.choice("\u200d\u094d\r"),
    ]
    texts = []
    for _ in range(5000):
        chosen = rng.choices(draws, k=rng.randint(1, 4))
        text = "a" + "".join(rng.choice(chosen)(rng) for _ in range(rng.randint(1, 14)))
        texts.append(text.replace("\n", "").replace("\0", ""))
    expected = [len(normalizers.Precompiled(charsmap).normalize_str(text)) for text in texts]
    ids, offsets = tokenizer.tokenize(texts, None, None, None)
    assert ids.tolist() == expected
    assert offsets.tolist() == list(range(len(texts) + 1))
