"""As many rows as the format has numbers for, in a file of 4."""

from crafting import Crafted

from smallfry.errors import ShapeError

REFUSED_BY_OPEN = ShapeError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["rows"] = str(2**32 - 2)
    return crafted.raw()
