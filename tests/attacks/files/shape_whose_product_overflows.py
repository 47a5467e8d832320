"""A shape with 30,000 sizes of 2**63."""

from crafting import Crafted

from smallfry.errors import ShapeError

REFUSED_BY_OPEN = ShapeError


def raw() -> bytes:
    return Crafted(entries={"codes": {"shape": [2**63] * 30_000}}).raw()
