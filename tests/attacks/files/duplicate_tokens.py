"""One token in two rows."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError
from smallfry.vocabulary import Vocabulary

REFUSED_BY_VERIFY = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["tokens"] = np.frombuffer(b"aacd", np.uint8)
    crafted.arrays["token_index"] = Vocabulary.build(["a", "b", "c", "d"]).index
    return crafted.raw()
