"""A number of rows in digits that int() reads and the format does not."""

from crafting import Crafted

from smallfry.errors import MetadataError

REFUSED_BY_OPEN = MetadataError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["rows"] = "\N{ARABIC-INDIC DIGIT FOUR}"
    return crafted.raw()
