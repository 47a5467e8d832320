"""An offset that is -1 in 64 bits."""

from crafting import Crafted

from smallfry.errors import LayoutError

REFUSED_BY_OPEN = LayoutError


def raw() -> bytes:
    return Crafted(entries={"tokens": {"data_offsets": [2**64 - 1, 2**64 - 1]}}).raw()
