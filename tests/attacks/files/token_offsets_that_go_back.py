"""Token offsets that fall, and pass the end of the tokens, under an index that leads to them."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError
from smallfry.vocabulary import Vocabulary

REFUSED_BY_VERIFY = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["token_index"] = Vocabulary.build(["a", "b", "c", "d"]).index
    crafted.arrays["token_offsets"] = np.array([0, 2**63, 1, 2**64 - 1, 4], np.uint64)
    return crafted.raw()
