"""A tensor that begins before the data, in the header."""

from crafting import Crafted

from smallfry.errors import HeaderSyntaxError

REFUSED_BY_OPEN = HeaderSyntaxError


def raw() -> bytes:
    return Crafted(entries={"codes": {"data_offsets": [-8, 0]}}).raw()
