"""Tables of tokenizers that encoding would follow only for some texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smallfry.errors import TokenizerError
from smallfry.text.merges import build_merge_index
from smallfry.text.model import CODE_POINT_BLOCKS, TextTensors
from smallfry.text.verify import verify_tables

MERGES = np.array([[0, 1, 2], [2, 2, 3]], np.uint32)


def tensors(**change: Any) -> TextTensors:
    characters = np.zeros(256, np.uint32)
    characters[ord("A")] = 1 << 12 | 8
    parts = TextTensors(
        np.zeros(0, np.uint8),
        np.zeros(0, np.uint32),
        np.zeros(CODE_POINT_BLOCKS, np.uint16),
        characters,
        np.frombuffer("\1a\2é".encode(), np.uint8),
        token_merges=MERGES,
        merge_index=build_merge_index(MERGES),
    )
    return parts._replace(**change)


def test_valid_tables() -> None:
    verify_tables(tensors(), 4)
    verify_tables(tensors(token_merges=None, merge_index=None), 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_trie": np.full(1, 1 << 31 | 4, np.uint32)}, "token_trie has the value 4, expected less"),
        (
            {"charsmap": np.full(1, 1 << 31 | 1, np.uint32), "charsmap_text": np.zeros(1, np.uint8)},
            "charsmap has the value 1, expected less than 1",
        ),
        ({"character_blocks": np.full(CODE_POINT_BLOCKS, 1, np.uint16)}, "character_blocks names block 1"),
        ({"characters": np.zeros(255, np.uint32)}, "characters has 255 entries"),
        ({"characters": np.full(256, 6 << 12, np.uint32)}, "a replacement starts at 5"),
        ({"characters": np.full(256, 2 << 12, np.uint32)}, "5 bytes, and a replacement starts at 1"),
        ({"character_text": np.array([1, 0xC3], np.uint8)}, "at byte 0 of character_text is not UTF-8"),
        ({"token_merges": MERGES + 1}, r"merge 1 is \[3, 3, 4\], and there are 4 tokens"),
        ({"token_merges": MERGES[::-1]}, "does not lead to merge 0"),
        ({"merge_index": np.full(64, 2, np.uint32)}, "does not lead to merge 0"),
        ({"merge_index": np.ones(3, np.uint32)}, "merge_index has 3 slots"),
    ],
)
def test_tables_that_lead_outside(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        verify_tables(tensors(**change), 4)
