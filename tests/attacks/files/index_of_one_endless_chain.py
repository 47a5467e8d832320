"""An index without an empty slot, each of which leads to a token that differs in its last byte."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError
from smallfry.fallback.tokens import hash_tokens

REFUSED_BY_VERIFY = TokenTableError


LENGTH = 1 << 14
ASKED = "a" * LENGTH


def raw() -> bytes:
    """Every one of the 64 steps that a lookup may take compares two tokens of 16 KB."""
    crafted = Crafted()
    tokens = np.full(4 * LENGTH, ord("a"), np.uint8)
    tokens[LENGTH - 1 :: LENGTH] = ord("b")
    asked = np.frombuffer(ASKED.encode(), np.uint8)
    hashed = int(hash_tokens(asked, np.array([0, LENGTH]), 0)[0])
    slot = (hashed << 3 & 0xFFFFFFF8) | 1
    crafted.arrays |= {
        "token_offsets": np.arange(5, dtype=np.uint64) * np.uint64(LENGTH),
        "token_index": np.full(1 << 12, slot, np.uint32),
        "tokens": tokens,
    }
    return crafted.raw()
