"""A codebook that decodes to NaN and infinity."""

import numpy as np
from crafting import Crafted

from smallfry.errors import CodeError

REFUSED_BY_VERIFY = CodeError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["codebook"] = np.array([np.nan, np.inf, -np.inf, 3e38], np.float32)
    return crafted.raw()
