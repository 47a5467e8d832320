"""Zero rows beyond the table."""

import numpy as np
from crafting import Crafted

from smallfry.errors import ZeroRowsError

REFUSED_BY_OPEN = ZeroRowsError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["zero_rows"] = np.array([1, 2**32 - 1], np.uint32)
    return crafted.raw()
