"""An index with fewer slots than a probe may read."""

import numpy as np
from crafting import Crafted

from smallfry.errors import TokenTableError

REFUSED_BY_OPEN = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["token_index"] = np.zeros(63, np.uint32)
    return crafted.raw()
