"""A dtype that no reader knows."""

from crafting import Crafted

from smallfry.errors import DtypeError

REFUSED_BY_OPEN = DtypeError


def raw() -> bytes:
    return Crafted(entries={"codebook": {"dtype": "F128"}}).raw()
