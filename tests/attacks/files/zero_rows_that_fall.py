"""Zero rows out of order, on which a search by halves relies."""

import numpy as np
from crafting import Crafted

from smallfry.errors import ZeroRowsError

REFUSED_BY_OPEN = ZeroRowsError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["zero_rows"] = np.array([3, 1], np.uint32)
    return crafted.raw()
