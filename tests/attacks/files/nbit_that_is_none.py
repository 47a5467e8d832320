"""A number of bits that no decoder has."""

from crafting import Crafted

from smallfry.errors import BitWidthError

REFUSED_BY_OPEN = BitWidthError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["nbit"] = "3"
    return crafted.raw()
