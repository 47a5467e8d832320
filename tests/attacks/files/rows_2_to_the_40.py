"""2**40 rows declared."""

from crafting import Crafted

from smallfry.errors import MetadataError

REFUSED_BY_OPEN = MetadataError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["rows"] = str(2**40)
    return crafted.raw()
