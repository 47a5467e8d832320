"""A tensor that ends before it begins."""

from crafting import Crafted

from smallfry.errors import OffsetError

REFUSED_BY_OPEN = OffsetError


def raw() -> bytes:
    return Crafted(entries={"codes": {"data_offsets": [340, 332]}}).raw()
