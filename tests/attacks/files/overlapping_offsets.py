"""Two tensors lie over each other."""

from crafting import Crafted

from smallfry.errors import LayoutError

REFUSED_BY_OPEN = LayoutError


def raw() -> bytes:
    return Crafted(entries={"codes": {"data_offsets": [328, 336]}}).raw()
