"""The bytes of the codes are right modulo 2**64: (2**31 + 46341) rows of (2**31 - 46340) floats."""

import numpy as np
from crafting import Crafted

from smallfry.errors import OffsetError

REFUSED_BY_OPEN = OffsetError


ROWS, DIM = 2**31 + 46341, 2**31 - 46340


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays = {"codes": np.zeros(ROWS * DIM * 4 % 2**64 // 4, np.float32)}
    crafted.entries = {"codes": {"shape": [ROWS, DIM]}}
    crafted.metadata |= {"rows": str(ROWS), "dim": str(DIM), "nbit": "32", "codebook": "float"}
    return crafted.raw()
