"""The last tensor ends far behind the end of the file."""

from crafting import Crafted

from smallfry.errors import TruncatedError

REFUSED_BY_OPEN = TruncatedError


def raw() -> bytes:
    return Crafted(entries={"tokens": {"data_offsets": [348, 2**40]}}).raw()
