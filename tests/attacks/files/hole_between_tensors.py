"""A hole between two tensors, where anything could hide."""

from crafting import Crafted

from smallfry.errors import LayoutError

REFUSED_BY_OPEN = LayoutError


def raw() -> bytes:
    return Crafted(entries={"codes": {"data_offsets": [400, 408]}}).raw()
