"""Codes that are called floating values, four times as wide."""

from crafting import Crafted

from smallfry.errors import DtypeError

REFUSED_BY_OPEN = DtypeError


def raw() -> bytes:
    return Crafted(entries={"codes": {"dtype": "F32", "shape": [4, 2]}}).raw()
