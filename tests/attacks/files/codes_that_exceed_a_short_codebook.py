"""A codebook of 3 values for codes of 2 bits, of which some are 3."""

import numpy as np
from crafting import Crafted

from smallfry.errors import CodebookError

REFUSED_BY_OPEN = CodebookError


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["codebook"] = np.array([-1, 0, 1], np.float32)
    crafted.arrays["codes"] = np.full((4, 2), 255, np.uint8)
    crafted.metadata["codebook"] = "given"
    return crafted.raw()
