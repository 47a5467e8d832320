"""Tokens that are no UTF-8."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError
from smallfry.vocabulary import Vocabulary

REFUSED_BY_VERIFY = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["tokens"] = np.array([0xFF, 0xC0, 0x80, 0xF5], np.uint8)
    crafted.arrays["token_index"] = Vocabulary.build(["a", "b", "c", "d"]).index
    return crafted.raw()
