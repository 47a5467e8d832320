"""An index that leads every token to a row beyond the table."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError
from smallfry.vocabulary import Vocabulary

REFUSED_BY_VERIFY = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    index = Vocabulary.build(["a", "b", "c", "d"]).index
    crafted.arrays["token_index"] = np.where(index, index | np.uint32(7), index)
    return crafted.raw()
