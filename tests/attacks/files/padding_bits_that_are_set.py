"""Bits behind the last value of a row, where something could hide."""

import numpy as np
from crafting import Crafted

from smallfry.errors import CodeError

REFUSED_BY_VERIFY = CodeError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["codes"] = np.full((4, 2), 255, np.uint8)
    return crafted.raw()
