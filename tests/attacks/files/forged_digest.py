"""A digest that is not that of the bytes."""

from crafting import Crafted

from smallfry.errors import DigestError

REFUSED_BY_VERIFY = DigestError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["sha256.codes"] = "0" * 64
    return crafted.raw()
