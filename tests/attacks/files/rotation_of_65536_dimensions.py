"""A rotation that would take 17 GB as a matrix: it is made where it is asked for alone."""

import numpy as np
from crafting import Crafted

from smallfry.errors import DigestError

REFUSED_BY_VERIFY = DigestError


DIM = 1 << 16


def raw() -> bytes:
    crafted = Crafted()
    crafted.arrays["codes"] = np.zeros((4, DIM // 4), np.uint8)
    crafted.metadata |= {"dim": str(DIM), "rotation": "hadamard 99999999999999999999"}
    crafted.metadata["sha256.codes"] = "f" * 64
    return crafted.raw()
