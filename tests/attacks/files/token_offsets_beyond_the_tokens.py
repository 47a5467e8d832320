"""Token offsets whose last does not end the tokens."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError

REFUSED_BY_OPEN = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["token_offsets"] = np.array([0, 1, 2, 3, 2**40], np.uint64)
    return crafted.raw()
